package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// late is how long after its deadline a delivery is logged as hung.
const late = 5 * time.Second

// attempt is one batch on its way.
type attempt struct {
	batch    *Batch
	number   int // of the route's attempts
	strike   int // the route's failures, ever, when it began
	began    time.Time
	deadline time.Time
}

// deliver hands the batch to the sink and its answer to the ledger. The attempt
// occupies its slot until the sink really returns: its records must not be sent
// again while nobody knows what it is still doing with them.
func (r *route) deliver(a *attempt) {
	records := a.batch.Records
	ctx, end := r.watch.begin(context.Background(), len(records))
	ctx, cancel := context.WithDeadline(ctx, a.deadline)
	alarm := time.AfterFunc(time.Until(a.deadline)+late, func() {
		r.log.LogAttrs(ctx, slog.LevelWarn, "delivery does not end after its deadline",
			slog.Duration("timeout", r.limits.Timeout), slog.Int("records", len(records)))
	})
	err := guard(func() error { return r.sink.Deliver(ctx, copied(records)) })
	now := time.Now()
	alarm.Stop()
	cancel()

	r.panics.note(err)
	v := judge(records, err, now)
	r.conclude(a, &v, now) // first: the ledger may give the records to the next attempt
	lost := a.batch.Resolve(v.results)
	end(&v, now.Sub(a.began))
	r.settle(a, &v, lost)
}

// copied is a deep copy: a sink that keeps or changes what it was given must hurt
// neither the ledger nor, by two goroutines in one map, the process.
func copied(records []sink.Record) []sink.Record {
	records = slices.Clone(records)
	for i := range records {
		records[i].Dimensions = maps.Clone(records[i].Dimensions)
	}
	return records
}

// conclude draws the route's conclusions from what the sink answered.
func (r *route) conclude(a *attempt, v *verdict, now time.Time) {
	r.mu.Lock()
	var report func()
	if v.progress {
		report = r.worked(v, now)
	} else {
		report = r.failed(a.strike, v.err, v.delay, now)
	}
	refused := v.count[sink.Rejected] > 0
	news := refused && !r.refusing
	r.refusing = refused
	r.mu.Unlock()

	report()
	if news {
		r.log.LogAttrs(context.Background(), slog.LevelWarn, "sink rejects records",
			slog.Int("records", v.count[sink.Rejected]), slog.String("error", text(v.refusal)))
	}
}

// settle ends an attempt whose results the ledger has, or has lost.
func (r *route) settle(a *attempt, v *verdict, lost error) {
	r.mu.Lock()
	delete(r.running, a)
	for _, f := range r.flushes {
		f.note(a, v, lost, r.limits.DedupeWindow > 0)
	}
	r.mu.Unlock()
	if lost != nil { // the ledger keeps it in memory, and says so in its health
		r.log.LogAttrs(context.Background(), slog.LevelError, "outcome of a delivery could not be stored",
			slog.Int("records", len(a.batch.Records)), slog.String("outcome", v.outcome()), slog.String("error", text(lost)))
	}
	r.rouse()
}

// worked notes that the sink made up its mind about a record. Call with mu held,
// and what it returns without.
func (r *route) worked(v *verdict, now time.Time) (report func()) {
	before := r.trouble
	r.trouble = trouble{}
	if v.delay > 0 {
		r.trouble.resume = now.Add(v.delay)
		r.trouble.asked = r.trouble.resume
	}
	r.size = min(2*r.size, r.batch)
	if before.tries == 0 {
		return func() {}
	}
	return func() {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "delivery works again",
			slog.Int("failures", before.tries), slog.Duration("after", now.Sub(before.since)))
	}
}

// failed notes a failure of the route as a whole. An attempt that began before
// the latest one, on another slot, is the same failure again and does not make
// the pause longer. Call with mu held, and what it returns without.
func (r *route) failed(strike int, err error, delay time.Duration, now time.Time) (report func()) {
	// The next try risks one record: in an outage each one tried falls in doubt.
	r.size = 1
	t := &r.trouble
	t.err = err
	if t.tries > 0 && strike != r.strikes {
		if asked := now.Add(delay); delay > 0 && asked.After(t.asked) {
			t.asked = asked
			if asked.After(t.resume) {
				t.resume = asked
			}
		}
		return func() {}
	}
	r.strikes++
	t.tries++
	t.resume, t.asked = now.Add(max(routePause(t.tries), delay)), time.Time{}
	if delay > 0 {
		t.asked = now.Add(delay)
	}
	if t.tries > 1 {
		return func() {}
	}
	t.since = now
	return func() {
		r.log.LogAttrs(context.Background(), slog.LevelWarn, "delivery fails",
			slog.String("error", text(err)))
	}
}

// describe names an attempt that is past its deadline.
func (a *attempt) describe(now time.Time) string {
	return fmt.Sprintf("a delivery of %s runs for %v, past its timeout of %v, and what it has waits for it",
		many(len(a.batch.Records), "record", "records"), now.Sub(a.began).Round(time.Second), a.deadline.Sub(a.began))
}
