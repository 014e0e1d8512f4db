package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
)

// declareGrace is how long a feature that an earlier run left behind may stay
// undeclared before its kind is learned from one of its records.
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
	wanted  map[string]bool         // held by the latest Take
	learned map[string]sink.Feature // of an earlier run
	patient time.Time               // when undeclared features are learned
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
		wanted:   make(map[string]bool),
		learned:  make(map[string]sink.Feature),
		patient:  time.Now().Add(declareGrace),
	}
}

// hold returns what Take asks about features, and forgets what was held before.
func (p *preparer) hold() func(feature string) bool {
	if p == nil {
		return func(string) bool { return false }
	}
	p.mu.Lock()
	clear(p.wanted)
	p.mu.Unlock()
	return func(feature string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ready[feature] {
			return false
		}
		p.wanted[feature] = true
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
	var names []string
	for name := range p.wanted {
		switch {
		case p.ready[name]:
			changed = true
		case !p.refused[name].resume.After(now):
			names = append(names, name)
		}
	}
	learning := !p.patient.After(now)
	p.mu.Unlock()
	if len(names) == 0 {
		return nil, changed
	}

	known := make(map[string]sink.Feature)
	for _, feature := range p.declared() {
		known[feature.Name] = feature
	}
	slices.Sort(names)
	for _, name := range names {
		feature, ok := known[name]
		if !ok {
			feature, ok = p.recall(name, learning)
		}
		if ok {
			due = append(due, feature)
		}
	}
	return due, changed
}

// recall returns an undeclared feature if its kind is known, or may be learned.
func (p *preparer) recall(name string, learning bool) (sink.Feature, bool) {
	p.mu.Lock()
	feature, ok := p.learned[name]
	p.mu.Unlock()
	if ok || !learning {
		return feature, ok
	}
	if feature, ok = p.route.learn(name); ok {
		p.mu.Lock()
		p.learned[name] = feature
		p.mu.Unlock()
	}
	return feature, ok
}

// prepare asks about features now. A sink that does not return when ctx ends
// keeps the turn, and its answer still counts.
func (p *preparer) prepare(ctx context.Context, features []sink.Feature) error {
	if p.route.life.Err() != nil {
		return p.route.wrong("features not prepared", errStopped)
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return p.route.wrong("features not prepared", context.Cause(ctx))
	}
	select {
	case errs := <-p.ask(ctx, slices.Clone(features)):
		for i, err := range errs {
			if err != nil {
				errs[i] = p.route.wrong(fmt.Sprintf("feature %q", features[i].Name), err)
			}
		}
		return errors.Join(errs...)
	case <-ctx.Done():
		return p.route.wrong("features not prepared", context.Cause(ctx))
	}
}

// ask asks the sink in the background. The turn must be taken; it is given back
// when the sink has really returned.
func (p *preparer) ask(ctx context.Context, features []sink.Feature) (answers <-chan []error) {
	ctx, cancel := context.WithCancel(ctx)
	halt := context.AfterFunc(p.route.life, cancel)
	out := make(chan []error, 1)
	go func() {
		errs, vague := p.call(ctx, features)
		for i := range errs {
			// One feature must not hold back the others only because the sink
			// does not say which it is.
			if vague && len(features) > 1 && ctx.Err() == nil {
				alone, _ := p.call(ctx, features[i:i+1])
				errs[i] = alone[0]
			}
		}
		halt()
		cancel()
		p.note(features, errs, time.Now())
		<-p.turn
		out <- errs
		p.route.rouse()
	}()
	return out
}

// call is one call of the sink, with an answer per feature; vague when the sink
// gave one error, in time, for all.
func (p *preparer) call(ctx context.Context, features []sink.Feature) (errs []error, vague bool) {
	ctx, cancel := context.WithTimeout(ctx, p.route.limits.Timeout)
	defer cancel()
	p.began(time.Now())
	defer p.began(time.Time{})
	err := guard(func() error { return p.sink.Prepare(ctx, slices.Clone(features)) })
	p.route.panics.note(err)
	defer func() {
		if riddle := recover(); riddle != nil {
			err = fmt.Errorf("sink returned a %T that panics when it is looked at: %v", err, riddle)
			errs, vague = slices.Repeat([]error{err}, len(features)), true
		}
	}()
	errs, apart := spread(err, len(features))
	for _, err := range errs {
		sink.RetryDelay(err) // an error that panics shall do it here
	}
	return errs, !apart && err != nil && ctx.Err() == nil
}

func (p *preparer) began(at time.Time) {
	p.mu.Lock()
	p.since = at
	p.mu.Unlock()
}

// note remembers the sink's answers.
func (p *preparer) note(features []sink.Feature, errs []error, now time.Time) {
	var reports []func()
	delays := make([]time.Duration, len(errs))
	for i, err := range errs {
		delays[i] = sink.RetryDelay(err)
	}
	p.mu.Lock()
	for i, feature := range features {
		name, err := slog.String("feature", feature.Name), errs[i]
		before, failing := p.refused[feature.Name]
		if err == nil {
			p.ready[feature.Name] = true
			delete(p.refused, feature.Name)
			if failing {
				reports = append(reports, func() {
					p.route.log.LogAttrs(context.Background(), slog.LevelInfo, "sink accepts the feature now",
						name, slog.Int("refusals", before.tries), slog.Duration("after", now.Sub(before.since)))
				})
			}
			continue
		}
		delete(p.ready, feature.Name)
		after := trouble{err: err, since: before.since, tries: before.tries + 1}
		after.resume = now.Add(max(routePause(after.tries), delays[i]))
		if !failing {
			after.since = now
			reports = append(reports, func() {
				p.route.log.LogAttrs(context.Background(), slog.LevelWarn, "sink refuses the feature: its records stay pending",
					name, slog.String("error", text(err)))
			})
		}
		p.refused[feature.Name] = after
	}
	p.mu.Unlock()
	for _, report := range reports {
		report()
	}
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

// waiting reports whether records are held, and when to ask again.
func (p *preparer) waiting(now time.Time) (held bool, retry time.Time) {
	if p == nil {
		return false, time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.wanted {
		next := p.patient
		if refused, ok := p.refused[name]; ok {
			next = refused.resume
		}
		if next.After(now) { // else an answer is on its way, or there is nothing to ask with
			retry = earliest(retry, next)
		}
	}
	return len(p.wanted) > 0, retry
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
		errs = append(errs, p.route.wrong(fmt.Sprintf("feature %q refused since %s (refusals: %d), its records stay pending",
			name, stamp(t.since), t.tries), t.err))
	}
	if timeout := p.route.limits.Timeout; !since.IsZero() && now.Sub(since) > timeout {
		errs = append(errs, p.route.wrong(fmt.Sprintf("asking the sink about features runs for %v, past its timeout of %v",
			now.Sub(since).Round(time.Second), timeout), nil))
	}
	return errs
}
