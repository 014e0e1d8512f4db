package meter

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// BenchmarkQuota says in a ratio what a call costs that is held to a quota, holds a
// part of it and is limited in its rate, beside one that is not, for 1024 subjects
// that are known: by the best of turns. "own" is a quota with bounds of its own, and
// "prepaid" are prepaid units instead of a quota; the last way counts by hand where there
// is a quota.
func BenchmarkQuota(b *testing.B) {
	for _, dir := range []string{InMemory, b.TempDir()} {
		b.Run(map[bool]string{true: "memory", false: "directory"}[dir == InMemory], func(b *testing.B) {
			m := open(b, func(c *Config) { c.Dir = dir })
			plain := m.Feature("plain", Quantity(1))
			full := m.Feature("full", Hold(5000), Rate(benchLimit, benchBurst), limited(license.Quota{Limit: 1 << 50}))
			now := time.Now()
			own := m.Feature("own", Hold(5000), Rate(benchLimit, benchBurst), limited(license.Quota{Limit: 1 << 50, Start: now.Add(-time.Hour), End: now.Add(time.Hour)}))
			prepaid := m.Feature("prepaid", Hold(5000), Rate(benchLimit, benchBurst), Prepaid(plenty{}, 1<<30))
			contexts := make([]context.Context, 1024)
			for i := range contexts {
				contexts[i] = as(subjectOf(i))
			}
			calls := func(f *Feature) func() func(int) {
				return func() func(int) {
					return func(i int) {
						_, call, err := f.Begin(contexts[i])
						if err != nil {
							return
						}
						_ = call.SetQuantity(1)
						_ = call.Commit()
					}
				}
			}
			byHand := func(f *Feature) func() func(int) {
				counters := make([]*Counter, len(contexts))
				for i := range counters {
					counters[i] = f.Counter(subjectOf(i))
				}
				return func() func(int) { return func(i int) { _ = counters[i].Add(context.Background(), 1) } }
			}
			for i := range contexts {
				require.True(b, try(b, full, subjectOf(i), 1))
				require.True(b, try(b, own, subjectOf(i), 1))
				require.True(b, try(b, prepaid, subjectOf(i), 1))
			}
			took := inTurns(b, map[string]func() func(int){
				"plain": calls(plain), "full": calls(full), "own": calls(own), "prepaid": calls(prepaid),
				"counter": byHand(plain), "counter-full": byHand(full),
			}, 1)
			b.ReportMetric(took["plain"], "plain-ns")
			b.ReportMetric(took["full"], "full-ns")
			b.ReportMetric(took["full"]/took["plain"], "full/plain")
			b.ReportMetric(took["own"]/took["plain"], "own/plain")
			b.ReportMetric(took["prepaid"]/took["plain"], "prepaid/plain")
			b.ReportMetric(took["counter-full"]/took["counter"], "counter-full/counter")
			b.ReportMetric(0, "ns/op") // of the turns: says nothing
		})
	}
}

func subjectOf(i int) string { return fmt.Sprintf("cus_%04d", i) }

// plenty is a balance that never ends.
type plenty struct{}

func (plenty) Read(context.Context, string) (license.Funds, error) {
	return license.Funds{Units: 1 << 50}, nil
}
func (plenty) Move(context.Context, license.Transfer) error { return nil }

// Quota, prepaid units, hold and rate allocate nothing.
func TestQuotaAllocatesNothing(t *testing.T) {
	m := open(t)
	plain := m.Feature("plain")
	full := m.Feature("full", Hold(5000), Rate(benchLimit, benchBurst), limited(license.Quota{Limit: 1 << 50}))
	ctx := as("s")
	allocations := func(f *Feature) float64 {
		return testing.AllocsPerRun(1000, func() {
			_, call, err := f.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = call.SetQuantity(1)
			_ = call.Commit()
		})
	}
	require.Equal(t, allocations(plain), allocations(full))
	require.Equal(t, allocations(plain), allocations(m.Feature("prepaid", Hold(5000), Rate(benchLimit, benchBurst), Prepaid(plenty{}, 1<<30))))
}

// BenchmarkFirstCalls says how fast units are drawn in a directory, for 64 callers whose
// subjects are all new: each draw is noted on the disk before and after.
func BenchmarkFirstCalls(b *testing.B) {
	m := open(b, inDir(b.TempDir()))
	f := m.Feature("f", Prepaid(plenty{}, 1000))
	var next atomic.Int64
	at64(func() bool {
		i := int(next.Add(1))
		return i <= b.N && try(b, f, subjectOf(i), 1)
	})
}
