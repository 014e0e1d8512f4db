package bench

import (
	"context"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// contender does something n times.
type contender struct {
	name string
	run  func(n int)
}

// turns has contenders take turns of n, and judges each by its best one, so that a
// busy machine hardly changes how they compare: nanoseconds for each.
func turns(b *testing.B, n int, all []contender) (best []float64) {
	best = make([]float64, len(all))
	for b.Loop() {
		for i, c := range all {
			began := time.Now()
			c.run(n)
			if took := float64(time.Since(began)) / float64(n); best[i] == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	b.ReportMetric(0, "ns/op") // of the turns: says nothing
	return best
}

// compare reports each contender's best, and how many times the first one's it is.
func compare(b *testing.B, n int, all []contender) {
	best := turns(b, n, all)
	for i, c := range all {
		b.ReportMetric(best[i], c.name+"-ns")
		if i > 0 {
			b.ReportMetric(best[i]/best[0], c.name+"/"+all[0].name)
		}
	}
}

// BenchmarkCounted says in a ratio what a count by a kept handle costs, beside what
// is the least for one that can be sealed (a compare-and-swap), and for one that can
// be sealed and survives that its memory goes away (the same under a fault guard).
func BenchmarkCounted(b *testing.B) {
	var bare, swapped, guarded atomic.Uint64
	counters := map[string]contender{}
	for _, place := range places {
		counter, ctx := openAt(b, place).Feature("report").Counter("cus_1"), context.Background()
		counters[place] = contender{place, func(n int) {
			for range n {
				_ = counter.Add(ctx, 1)
			}
		}}
		require.NoError(b, counter.Add(context.Background(), 1))
	}
	compare(b, 1000, []contender{
		{"atomic", func(n int) {
			for range n {
				bare.Add(1)
			}
		}},
		{"swap", func(n int) {
			for range n {
				swap(&swapped)
			}
		}},
		{"guarded", func(n int) {
			for range n {
				guardedSwap(&guarded)
			}
		}},
		counters["memory"], counters["directory"],
	})
}

func swap(word *atomic.Uint64) bool {
	old := word.Load()
	return old>>63 == 0 && word.CompareAndSwap(old, old+1)
}

//go:noinline
func guardedSwap(word *atomic.Uint64) (counted bool) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if !counted {
			_ = recover()
		}
	}()
	return swap(word)
}

// BenchmarkFound does the same for counts by name among 100,000 customers, beside
// a map of counters.
func BenchmarkFound(b *testing.B) {
	names, next := customers()
	var counters sync.Map
	for _, name := range names {
		counters.Store(strings.Clone(name), new(atomic.Int64)) // a request brings a string of its own
	}
	all := []contender{{"sync.Map", func(n int) {
		for range n {
			c, _ := counters.Load(next())
			c.(*atomic.Int64).Add(1)
		}
	}}}
	for _, place := range places {
		report, ctx := openAt(b, place).Feature("report"), context.Background()
		for _, name := range names {
			require.NoError(b, report.Add(ctx, name, 1))
		}
		all = append(all, contender{place, func(n int) {
			for range n {
				_ = report.Add(ctx, next(), 1)
			}
		}})
	}
	compare(b, 20_000, all)
}
