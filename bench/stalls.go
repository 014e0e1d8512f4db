package main

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter"
)

// stallTables look at each count for itself while windows end and counts are synced:
// what the unluckiest request feels.
func stallTables() []table {
	t := table{
		name: "stalls", rounds: 5,
		what: "one use among those of a goroutine, the clock read included, while all that was counted is sealed every second, and synced every 10 ms",
		unit: "ns",
	}
	for _, n := range []int{1000, 100_000, 1_000_000} {
		tr := uniform(n)
		h := heat{series: n}
		for _, q := range []string{"p99", "p99.9", "max"} {
			h.columns = append(h.columns, count(n)+" "+q)
		}
		rotating := func(cfg meter.Config) func(s *stage) turn {
			return func(s *stage) turn {
				names, ctx := customers(n), context.Background()
				cfg.Window, cfg.Sync, cfg.MaxDisk = meter.OnFlush, 10*time.Millisecond, 16<<30
				m := s.meter(cfg)
				f := m.Feature(feature)
				for _, name := range names {
					must(f.Add(ctx, name, 1))
				}
				return func() []float64 {
					return stalls(tr, 10*s.slice, func(i uint32) { must(f.Add(ctx, names[i], 1)) }, func() { must(m.Flush(ctx)); time.Sleep(time.Second) })
				}
			}
		}
		h.contenders = []contender{
			{"meter: Feature.Add", ours, rotating(meter.Config{})},
			{"meter: in memory", ours, rotating(meter.Config{Dir: meter.InMemory})},
			// What a goroutine suffers anyway, for the machine has other things to do.
			{"limit: frozen map, atomic add", limit, func(s *stage) turn {
				op := frozenMap(s, customers(n))
				return func() []float64 { return stalls(tr, 10*s.slice, op, func() { time.Sleep(time.Second) }) }
			}},
			// It has something to do beside it, and shares nothing with that.
			{"limit: the same beside busy goroutines", limit, func(s *stage) turn {
				op := frozenMap(s, customers(n))
				return func() []float64 {
					return stalls(tr, 10*s.slice, op, func() {
						var busy sync.WaitGroup
						for range runtime.GOMAXPROCS(0) {
							busy.Go(func() { spin(500 * time.Millisecond) })
						}
						busy.Wait()
						time.Sleep(500 * time.Millisecond)
					})
				}
			}},
		}
		t.heats = append(t.heats, h)
	}
	return []table{t}
}

// stalls counts for so long, and until what happens beside it happened twice.
func stalls(tr traffic, slice time.Duration, op func(i uint32), beside func()) []float64 {
	const most = 20_000_000
	var stop atomic.Bool
	var happened atomic.Int64
	var other sync.WaitGroup
	other.Go(func() {
		for !stop.Load() {
			beside()
			happened.Add(1)
		}
	})
	took := make([]int32, 0, most)
	began := time.Now()
	last := began
	for i := 0; i < most && (last.Sub(began) < slice || happened.Load() < 2); i++ {
		op(tr.order[i%orderLength])
		now := time.Now()
		took = append(took, int32(min(now.Sub(last), time.Second)))
		last = now
	}
	stop.Store(true)
	other.Wait()
	slices.Sort(took)
	quantile := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) }
	return []float64{quantile(0.99), quantile(0.999), quantile(1)}
}

// spin keeps a processor busy.
func spin(d time.Duration) {
	for began := time.Now(); time.Since(began) < d; {
	}
}
