package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter"
	"github.com/stretchr/testify/require"
)

// places are where the benchmarks count.
var places = []string{"memory", "directory"}

func openAt(tb testing.TB, place string) *meter.Meter {
	if place == "memory" {
		return open(tb, meter.InMemory)
	}
	return open(tb, tb.TempDir())
}

// BenchmarkCounter compares a kept handle with the cheapest counter there is.
func BenchmarkCounter(b *testing.B) {
	b.Run("atomic.Int64", func(b *testing.B) {
		b.ReportAllocs()
		var n atomic.Int64
		for b.Loop() {
			n.Add(1)
		}
	})
	for _, place := range places {
		b.Run("Counter.Add,"+place, func(b *testing.B) {
			b.ReportAllocs()
			counter, ctx := openAt(b, place).Feature("report").Counter("cus_1"), context.Background()
			for b.Loop() {
				if err := counter.Add(ctx, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const live = 100_000

// customers come in an order that no cache can guess.
func customers() (names []string, next func() string) {
	names = make([]string, live)
	for i := range names {
		names[i] = fmt.Sprintf("cus_%08d", i)
	}
	state := uint32(1)
	return names, func() string {
		state = state*1664525 + 1013904223
		return names[int(state>>8)%live]
	}
}

// BenchmarkAdd compares counting by name, among 100,000 customers, with a map of
// counters, which forgets all when the process ends.
func BenchmarkAdd(b *testing.B) {
	b.Run("sync.Map+atomic.Int64", func(b *testing.B) {
		b.ReportAllocs()
		names, next := customers()
		var counters sync.Map
		for _, name := range names {
			counters.Store(strings.Clone(name), new(atomic.Int64)) // a request brings a string of its own
		}
		for b.Loop() {
			n, _ := counters.Load(next())
			n.(*atomic.Int64).Add(1)
		}
	})
	for _, place := range places {
		b.Run("Feature.Add,"+place, func(b *testing.B) {
			b.ReportAllocs()
			names, next := customers()
			report, ctx := openAt(b, place).Feature("report"), context.Background()
			for _, name := range names {
				require.NoError(b, report.Add(ctx, name, 1))
			}
			for b.Loop() {
				if err := report.Add(ctx, next(), 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A random order that visits few customers would measure a small map.
func TestCustomersAreSpread(t *testing.T) {
	t.Parallel()
	_, next := customers()
	seen := map[string]bool{}
	for range 3 * live {
		seen[next()] = true
	}
	require.Greater(t, len(seen), live*9/10)
}
