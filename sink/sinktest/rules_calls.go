package sinktest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/inprocess/meter/sink"
)

var unchangedRule = rule{
	name: "unchanged",
	why:  "Deliver must not change the records nor their Dimensions: other routes and later attempts send the same ones",
	check: func(tr *trial) {
		var records []sink.Record
		for i, dimensions := range []map[string]string{{"region": "eu"}, nil, {"region": "us", "tier": "gold"}} {
			r := tr.record(tr.kind, tr.subject(), int64(i+1))
			r.Dimensions = dimensions
			records = append(records, r)
		}
		slices.Reverse(records) // a sink that sorts them in place would show
		before := copies(records)
		tr.deliver(records...)
		for i, r := range records {
			if !same(r, before[i]) {
				tr.failf("Deliver changed record %d from %+v to %+v", i, before[i], r)
			}
		}
	},
}

func copies(records []sink.Record) []sink.Record {
	held := slices.Clone(records)
	for i := range held {
		held[i].Dimensions = maps.Clone(held[i].Dimensions)
	}
	return held
}

func same(a, b sink.Record) bool {
	return a.ID == b.ID && a.Feature == b.Feature && a.Subject == b.Subject &&
		maps.Equal(a.Dimensions, b.Dimensions) && (a.Dimensions == nil) == (b.Dimensions == nil) &&
		a.Kind == b.Kind && a.Quantity == b.Quantity && a.Start == b.Start && a.End == b.End && a.Attempt == b.Attempt && a.Doubt == b.Doubt
}

var retainedRule = rule{
	name: "retained",
	why: "Deliver must not keep the records after it has returned: meter uses their memory again. " +
		"A sink that buffers answers nil for what the biller does not have yet, and a crash loses it",
	check: func(tr *trial) {
		tr.needsSum()
		dimensions := map[string]string{"region": "eu"}
		r := tr.record(sink.Sum, tr.subject(), 2)
		if _, without := tr.Skip[dimensionsRule.name]; !without {
			r.Dimensions = dimensions
		}
		records := []sink.Record{r}
		tr.must("one record", records...)
		intruder := tr.record(sink.Sum, tr.subject(), 1000)
		dimensions["region"] = "moon"
		records[0] = intruder
		next := tr.record(sink.Sum, tr.subject(), 1)
		tr.must("the next record", next) // what was kept would be flushed now
		tr.wantTotal(r, 2, "its slice was used again")
		tr.wantTotal(intruder, 0, "it was only written over a delivered record")
		if tr.Series != nil && r.Dimensions != nil {
			if got := tr.Series(tr.t, r.Feature, r.Subject, map[string]string{"region": "eu"}); got != 2 {
				tr.failf("the biller has %d for region eu after its map was used again, want 2", got)
			}
		}
	},
}

var concurrencyRule = rule{
	name: "concurrency",
	why: "Deliver is called from as many goroutines as Limits.Concurrency says (0: one at a time), " +
		"never twice at once for one subject and feature; run with -race",
	check: func(tr *trial) {
		const calls = 8
		goroutines := min(max(tr.limits.Concurrency, 1), 64)
		batches := make([][calls][]sink.Record, goroutines)
		for g := range batches {
			one, two := tr.subject(), tr.subject()
			for c := range batches[g] {
				r := window(tr.record(tr.kind, one, 1), c)
				batches[g][c] = []sink.Record{r}
				if tr.limits.MaxBatch != 1 {
					batches[g][c] = append(batches[g][c], window(tr.record(tr.kind, two, 1), c))
				}
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, mine := range batches {
			wg.Go(func() {
				quiet := &trial{kit: tr.kit, t: tr.t, sink: tr.sink, limits: tr.limits}
				quiet.run(func() {
					for _, batch := range mine {
						quiet.must("a call beside others", batch...)
					}
				})
				mu.Lock()
				defer mu.Unlock()
				tr.broken = append(tr.broken, quiet.broken...)
			})
		}
		wg.Wait()
		if tr.kind != sink.Sum || tr.broken != nil {
			return
		}
		for _, mine := range batches {
			for _, r := range mine[0] {
				tr.wantTotal(r, calls, "calls from several goroutines")
			}
		}
	},
}

var endedRule = rule{
	name: "ended context",
	why: "a context that has ended means: don't send. The answer is an error, " +
		"ErrNotApplied if nothing was sent; never ErrRejected, which is final",
	check: func(tr *trial) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r := tr.record(tr.kind, tr.subject(), 2)
		a := tr.deliverCtx(ctx, r)[0]
		if a == rejected {
			tr.failf("an ended context was answered ErrRejected: the record would never be billed")
		}
		tr.agree(r, a, "a call with an ended context")
	},
}
