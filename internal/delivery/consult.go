package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

const (
	// scheduleEvery is how soon a window can be ended where a bill ends.
	scheduleEvery = time.Second
	// verifyEvery is how often a sink is asked about records in doubt. They have
	// waited for a day; what the biller reads may lag behind by minutes.
	verifyEvery = 30 * time.Minute
	// enoughFailures in a row say that the biller can't be asked at all now.
	enoughFailures = 5
)

// consult asks a sink, beside its deliveries, what else it knows. Each question
// has a goroutine of its own, so that one that hangs keeps nothing else waiting.
func (r *route) consult() {
	if s, ok := r.sink.(sink.Scheduler); ok {
		go r.every(scheduleEvery, func() { r.schedule(s) })
	}
	if v, ok := r.sink.(sink.Verifier); ok {
		go r.every(verifyEvery, func() { r.verify(v) })
	}
}

// every calls act until the delivery stops.
func (r *route) every(interval time.Duration, act func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-r.life.Done():
			return
		case <-ticker.C:
			act()
		}
	}
}

// schedule tells the ledger when the running window must end for this route.
func (r *route) schedule(s sink.Scheduler) {
	var end time.Time
	after := r.ledger.SoonestEnd().Add(-time.Nanosecond)
	err := guard(func() error { end = s.NextEnd(after); return nil })
	if r.panics.note(err); err == nil {
		r.ledger.EndWindowAt(r.index, end)
	}
}

// verify settles the doubts about which the sink has found out the truth.
func (r *route) verify(v sink.Verifier) {
	failures := 0
	for _, doubt := range r.ledger.Doubts(r.index) {
		if r.life.Err() != nil || failures == enoughFailures {
			return
		}
		outcome, err := r.ask(v, doubt)
		if r.panics.note(err); err != nil {
			r.log.LogAttrs(r.life, slog.LevelWarn, "a record in doubt could not be verified",
				slog.String("record", doubt.ID), slog.String("error", text(err)))
			failures++
			continue
		}
		failures = 0
		if outcome != sink.Delivered && outcome != sink.Pending {
			continue
		}
		note := fmt.Sprintf("verified with the sink of route %q", r.name)
		if err := r.ledger.Settle(r.life, r.name, doubt.ID, outcome, note); err != nil {
			r.log.LogAttrs(r.life, slog.LevelError, "a verified record could not be settled",
				slog.String("record", doubt.ID), slog.String("as", outcome.String()), slog.String("error", text(err)))
		}
	}
}

func (r *route) ask(v sink.Verifier, doubt ledger.Doubt) (outcome sink.Outcome, err error) {
	ctx, cancel := context.WithTimeout(r.life, r.limits.Timeout)
	defer cancel()
	record := doubt.Record
	record.Dimensions = maps.Clone(record.Dimensions)
	err = guard(func() error {
		var err error
		outcome, err = v.Verify(ctx, record, doubt.Alone)
		return err
	})
	return outcome, err
}
