package delivery

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
)

// declareGrace is how long a feature that an earlier run left behind may stay
// undeclared before the sink is asked with what its records tell: its unit is
// unknown.
const declareGrace = 10 * time.Second

// preparer asks a sink about features before their first record is taken. It
// asks only about features that have records to send. A nil preparer holds
// nothing.
//
// Nothing is sent unprepared, declared in this run or not: an earlier run may
// have held a feature because the sink would bill it wrongly.
//
// Concurrency: safe.
type preparer struct {
	route    *route
	sink     sink.Preparer
	declared func() []sink.Feature
	turn     chan struct{} // capacity 1: full while the sink is being asked

	mu      sync.Mutex // guards what follows; never held during a call to anybody else
	ready   map[string]bool
	refused map[string]trouble
	wanted  map[string]sink.Feature // held by the latest Take, as its records tell
	patient time.Time               // when undeclared features are asked about
	since   time.Time               // when the running call began; zero: none
}

func newPreparer(r *route, asked sink.Preparer, declared func() []sink.Feature) *preparer {
	return &preparer{
		route:    r,
		sink:     asked,
		declared: declared,
		turn:     make(chan struct{}, 1),
		ready:    make(map[string]bool),
		refused:  make(map[string]trouble),
		wanted:   make(map[string]sink.Feature),
		patient:  time.Now().Add(declareGrace),
	}
}

// hold returns what Take asks about features, and forgets what was held before.
func (p *preparer) hold() func(sink.Feature) bool {
	if p == nil {
		return func(sink.Feature) bool { return false }
	}
	p.mu.Lock()
	clear(p.wanted)
	p.mu.Unlock()
	return func(feature sink.Feature) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ready[feature.Name] {
			return false
		}
		p.wanted[feature.Name] = feature
		return true
	}
}

// start asks the sink about what the latest Take held, unless it is being asked
// already. It reports whether an answer is on its way, or came since that Take:
// either wakes the dispatcher.
func (p *preparer) start(now time.Time) (answering bool) {
	if p == nil {
		return false
	}
	due, answering := p.due(now)
	if len(due) == 0 {
		return answering || p.busy()
	}
	select {
	case p.turn <- struct{}{}:
		p.ask(p.route.life, due)
	default:
	}
	return true
}

// due is what to ask the sink about now; changed when a held feature is ready.
func (p *preparer) due(now time.Time) (due []sink.Feature, changed bool) {
	p.mu.Lock()
	found := make(map[string]sink.Feature)
	for name, feature := range p.wanted {
		switch {
		case p.ready[name]:
			changed = true
		case !p.refused[name].resume.After(now):
			found[name] = feature
		}
	}
	patient := p.patient.After(now)
	p.mu.Unlock()
	if len(found) == 0 {
		return nil, changed
	}

	known := make(map[string]sink.Feature)
	for _, feature := range p.declared() {
		known[feature.Name] = feature
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if feature, ok := known[name]; ok {
			due = append(due, feature)
		} else if !patient {
			due = append(due, found[name])
		}
	}
	return due, changed
}

// busy reports whether the sink is being asked.
func (p *preparer) busy() bool { return p != nil && len(p.turn) > 0 }

// hurry lets everything that is held be asked about at once.
func (p *preparer) hurry() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.patient = time.Time{}
	for name, refused := range p.refused {
		refused.resume = time.Time{}
		p.refused[name] = refused
	}
}

// retry is when to ask again about what is held; zero: there is no such time.
func (p *preparer) retry(now time.Time) (first time.Time) {
	if p == nil {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.wanted {
		next := p.patient
		if refused, ok := p.refused[name]; ok {
			next = refused.resume
		}
		if next.After(now) { // else an answer is on its way, or there is nothing to ask with
			first = earliest(first, next)
		}
	}
	return first
}

// lastError is why a held feature is held; nil if none is.
func (p *preparer) lastError() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var last error
	var at time.Time
	for name := range p.wanted {
		if refused := p.refused[name]; refused.err != nil && refused.resume.After(at) {
			last, at = refused.err, refused.resume
		}
	}
	return last
}

// health is what is wrong with features now.
func (p *preparer) health(now time.Time) (errs []error) {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	refused, since := maps.Clone(p.refused), p.since
	p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		t := refused[name]
		errs = append(errs, p.route.wrong(fmt.Sprintf("sink not ready for feature %q since %s (failures: %d), its records stay pending",
			name, stamp(t.since), t.tries), t.err))
	}
	if timeout := p.route.limits.Timeout; !since.IsZero() && now.Sub(since) > timeout {
		errs = append(errs, p.route.wrong(fmt.Sprintf("asking the sink about features runs for %v, past its timeout of %v",
			now.Sub(since).Round(time.Second), timeout), nil))
	}
	return errs
}
