package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
)

// lookAgain is how long a route with open records sleeps at most: what keeps them
// back may be a wall clock, which can jump.
const lookAgain = 5 * time.Minute

// route is one way out with its dispatcher: the goroutine of run, which alone
// takes from the ledger and starts attempts.
//
// Concurrency: safe.
type route struct {
	name   string
	index  int
	sink   sink.Sink
	limits sink.Limits
	batch  int // most records an attempt
	ledger Ledger
	prep   *preparer // nil: the sink needs none
	pace   pace
	log    *slog.Logger
	panics *panicLog
	watch  *routeTelemetry
	life   context.Context // ends at Stop
	ready  <-chan struct{}
	wake   chan struct{} // capacity 1
	exited chan struct{} // closed when nothing runs any more

	mu       sync.Mutex // guards what follows; never held during a call to anybody else
	running  map[*attempt]struct{}
	number   int // attempts begun
	strikes  int // failures counted, ever
	size     int // records of the next attempt at most: 1 after a failure, doubled by each success
	trouble  trouble
	refusing bool // the last answer rejected a record
	flushes  []*flush
	asked    int // flushes begun
}

// trouble is a route's failures in a row. It may rest without any, when a sink
// asks for a pause.
type trouble struct {
	err    error
	since  time.Time
	tries  int
	resume time.Time
	asked  time.Time // before it the sink wants nothing; not after resume
}

func newRoute(life context.Context, cfg Config, index int, c Route, watch *telemetry) *route {
	log := cfg.Logger.With(slog.String("route", c.Name))
	r := &route{
		name:    c.Name,
		index:   index,
		sink:    c.Sink,
		limits:  c.Limits,
		ledger:  cfg.Ledger,
		log:     log,
		panics:  newPanicLog(log),
		watch:   watch.route(c.Name),
		life:    life,
		ready:   cfg.Ledger.Ready(index),
		wake:    make(chan struct{}, 1),
		exited:  make(chan struct{}),
		running: make(map[*attempt]struct{}),
	}
	r.pace, r.batch = newPace(c.Limits)
	r.size = r.batch
	if asked, ok := c.Sink.(sink.Preparer); ok {
		r.prep = newPreparer(r, asked, cfg.Features)
	}
	return r
}

// rouse makes the dispatcher look again.
func (r *route) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run is the dispatcher.
func (r *route) run() {
	defer close(r.exited)
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := r.life.Done()
	for {
		if r.life.Err() != nil {
			stop = nil
			if r.idle() {
				return
			}
		}
		timer.Stop()
		if look := r.work(); !look.IsZero() {
			timer.Reset(time.Until(look))
		}
		select {
		case <-r.ready:
		case <-r.wake:
		case <-timer.C:
		case <-stop:
		}
	}
}

// work starts as many attempts as it may, and returns when to look again even if
// nothing wakes it; zero: never.
func (r *route) work() (look time.Time) {
	for again := true; again && r.life.Err() == nil; {
		again, look = r.step(time.Now())
	}
	return look
}

// idle reports whether nothing runs.
func (r *route) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running) == 0 && !r.prep.busy()
}

// step takes one batch if it may.
func (r *route) step(now time.Time) (again bool, look time.Time) {
	s := r.survey(now)
	if s.full {
		return false, time.Time{}
	}
	open, _ := r.ledger.OpenRecords(r.index)
	if open == 0 {
		r.endFlushes(s, pending{})
	}
	if s.resume.After(now) {
		r.endFlushes(s, pending{open: open, next: s.resume, refused: s.wanted.Sub(now) > longestAsk})
		return false, s.resume
	}
	// Also with nothing open: a record whose time has run out may be waiting for
	// the ledger to look at it.
	n := min(max(open, 1), s.size)
	if wait := r.pace.delay(now, n); wait > 0 {
		return false, now.Add(wait)
	}
	batch, err := r.ledger.Take(r.index, n, r.prep.hold())
	if err != nil {
		r.troubled(s, err)
		return true, time.Time{}
	}
	answering := r.prep.start(now)
	if batch != nil {
		r.pace.spend(now, len(batch.Records))
		r.begin(batch)
		return true, time.Time{}
	}
	next := r.ledger.NextTry(r.index)
	if !next.After(now) { // it was looked at: held, or its series is being sent
		next = time.Time{}
	}
	if left, _ := r.ledger.OpenRecords(r.index); left != open {
		return true, time.Time{} // some of it went before a person, or more has come
	}
	if !answering {
		r.endFlushes(s, pending{open: open, postponed: r.ledger.Postponed(r.index), next: next})
	}
	if open == 0 {
		return false, next
	}
	return false, earliest(next, r.prep.retry(now), now.Add(lookAgain))
}

// survey is what a step starts from. What it has seen as quiet stays quiet for
// the step, for only the dispatcher starts attempts.
type survey struct {
	full   bool      // no slot is free
	quiet  bool      // nothing runs
	size   int       // most records to take
	strike int       // as of an attempt that begins now
	asked  int       // flushes begun before
	resume time.Time // nothing is taken before
	wanted time.Time // by the sink: nothing before
}

func (r *route) survey(now time.Time) survey {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := survey{
		full:   len(r.running) >= r.limits.Concurrency,
		quiet:  len(r.running) == 0,
		strike: r.strikes,
		asked:  r.asked,
	}
	if !s.full && r.trouble.resume.After(now) {
		for _, f := range r.flushes {
			if f.impatient {
				f.impatient = false
				r.trouble.resume = r.trouble.asked
			}
		}
	}
	s.size, s.resume, s.wanted = r.size, r.trouble.resume, r.trouble.asked
	return s
}

// begin starts an attempt.
func (r *route) begin(batch *Batch) {
	now := time.Now()
	r.mu.Lock()
	r.number++
	a := &attempt{
		batch:    batch,
		number:   r.number,
		strike:   r.strikes,
		began:    now,
		deadline: now.Add(r.limits.Timeout),
	}
	r.running[a] = struct{}{}
	r.mu.Unlock()
	go r.deliver(a)
}

// troubled notes that the ledger could not give a batch.
func (r *route) troubled(s survey, err error) {
	r.mu.Lock()
	report := r.failed(s.strike, &ledgerError{err}, 0, time.Now())
	for _, f := range r.flushes {
		if f.id <= s.asked {
			f.struck = true
		}
	}
	r.mu.Unlock()
	report()
}

// earliest is the first of times that is not zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
