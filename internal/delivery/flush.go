package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// flush is one call of Flush on one route. The dispatcher ends it.
//
// Concurrency: guarded by its route's mu, except done.
type flush struct {
	deadline  time.Time       // of the call; zero: none
	id        int             // counts up
	after     int             // the last attempt begun before the call
	impatient bool            // may still ignore a backoff
	failed    map[string]bool // records by ID whose last attempt since the call failed
	struck    bool            // an attempt since the call failed as a whole
	lost      error           // an outcome since the call could not be stored
	why       string          // what the sink said of a record that it left open since the call
	done      chan error      // capacity 1
}

func (r *route) startFlush(ctx context.Context) *flush {
	f := &flush{impatient: true, failed: make(map[string]bool), done: make(chan error, 1)}
	f.deadline, _ = ctx.Deadline() // here, where a nil ctx panics on its owner's goroutine
	r.prep.hurry()
	r.mu.Lock()
	r.asked++
	f.id, f.after = r.asked, r.number
	r.flushes = append(r.flushes, f)
	r.mu.Unlock()
	r.rouse()
	return f
}

// awaitFlush returns when the flush is over or ctx has ended; then nil only if
// nothing is left.
func (r *route) awaitFlush(ctx context.Context, f *flush) error {
	var stopped error
	select {
	case err := <-f.done:
		return err
	case <-r.exited:
		stopped = errStopped
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.flushes = slices.DeleteFunc(r.flushes, func(other *flush) bool { return other == f })
	running, lost, why := len(r.running), f.lost, f.why
	r.mu.Unlock()
	select { // it may have ended at the same time
	case err := <-f.done:
		return err
	default:
	}
	open, _ := r.ledger.OpenRecords(r.index)
	if open == 0 && running == 0 && lost == nil {
		return nil
	}
	return r.left(open, why, lost, stopped)
}

// note keeps account of an attempt that ended.
func (f *flush) note(a *attempt, v *verdict, lost error, dedupes bool) {
	if lost != nil {
		f.lost = lost
	}
	for i, record := range a.batch.Records {
		switch {
		case final(v.results[i].Outcome), v.results[i].Outcome == sink.InDoubt && !dedupes: // quarantined
			delete(f.failed, record.ID)
		case v.results[i].Postponed: // the ledger counts those
			delete(f.failed, record.ID)
			f.why = v.results[i].Reason
		case a.number > f.after:
			f.failed[record.ID] = true
			f.why = v.results[i].Reason
		}
	}
	if a.number > f.after && !v.progress {
		f.struck = true
	}
}

// pending is what keeps a quiet route from sending.
type pending struct {
	open      int       // records
	postponed int       // of them, that wait because of what they are
	refused   bool      // the sink wants nothing for long
	next      time.Time // when something may be tried again; zero: only if something else happens
}

// endFlushes ends those that have nothing to wait for. It looks only at flushes
// begun before the step, whose counts would else be older than the call.
func (r *route) endFlushes(s survey, p pending) {
	if !s.quiet {
		return
	}
	type ended struct {
		flush *flush
		lost  error
		why   string
	}
	var over []ended
	r.mu.Lock()
	r.flushes = slices.DeleteFunc(r.flushes, func(f *flush) bool {
		if f.id > s.asked || !f.over(p, r.trouble.tries) {
			return false
		}
		over = append(over, ended{f, f.lost, f.why})
		return true
	})
	r.mu.Unlock()
	for _, e := range over {
		if p.open == 0 && e.lost == nil {
			e.flush.done <- nil
		} else {
			e.flush.done <- r.left(p.open, e.why, e.lost, nil)
		}
	}
}

// over reports whether f has nothing to wait for, after so many failures in a row.
func (f *flush) over(p pending, failures int) bool {
	switch {
	case p.open == 0, p.open <= len(f.failed)+p.postponed, p.next.IsZero():
		return true
	case f.struck && failures >= routeDown, p.refused && f.deadline.IsZero():
		return true
	}
	return !f.deadline.IsZero() && !p.next.Before(f.deadline)
}

// left is the error of a flush that leaves records open, of one of which the sink said
// why.
func (r *route) left(open int, why string, lost, stopped error) error {
	r.mu.Lock()
	running := len(r.running)
	last := r.trouble.err
	r.mu.Unlock()
	if last == nil {
		last = r.prep.lastError()
	}
	if last == nil && why != "" {
		last = errors.New(why)
	}
	for _, err := range []error{stopped, lost} {
		if err != nil {
			last = err
		}
	}
	message := many(open, "record", "records") + " still open"
	if running > 0 {
		message += ", " + many(running, "delivery", "deliveries") + " running"
	}
	return r.wrong(message, last)
}
