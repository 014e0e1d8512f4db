package meter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// limited is a Limit that is the same for everybody.
func limited(q license.Quota) FeatureOption {
	return Limit(func(context.Context, string) (license.Quota, error) { return q, nil })
}

// at64 runs work on 64 goroutines until it returns false in each.
func at64(work func() bool) {
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for work() {
			}
		})
	}
	all.Wait()
}

// try makes one call that counts n, and says whether it was let through.
func try(t testing.TB, f *Feature, subject string, n int64, opts ...Option) bool {
	_, call, err := f.Begin(as(subject), opts...)
	if err != nil {
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason != license.OverQuota {
			t.Error(err)
		}
		return false
	}
	if err := errors.Join(call.SetQuantity(n), call.Commit()); err != nil {
		t.Error(err)
	}
	return true
}

// Of 64 goroutines that call as fast as they can, as many are let through as there
// is quota: not one more, and not one less, whatever they reserve and however they end.
func TestExactlyTheLimitIsLetThrough(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	for name, test := range map[string]struct {
		option Option
		n      int64
	}{
		"ones":     {Quantity(1), 1},
		"quantity": {Quantity(5), 5},
		"hold":     {Hold(8), 8},
	} {
		for _, dir := range []string{InMemory, t.TempDir()} {
			t.Run(name+" "+map[bool]string{true: "in memory", false: "in a directory"}[dir == InMemory], func(t *testing.T) {
				t.Parallel()
				m := open(t, func(c *Config) { c.Dir = dir })
				f := m.Feature("f", limited(license.Quota{Limit: limit}))
				var let atomic.Int64
				at64(func() bool {
					if !try(t, f, "s", test.n, test.option) {
						return false
					}
					let.Add(1)
					_, call, err := f.Begin(as("s"), test.option) // and one that changes nothing
					if err == nil {
						call.Cancel()
					}
					return true
				})
				for try(t, f, "s", test.n, test.option) { // what the canceled ones kept others from
					let.Add(1)
				}
				require.EqualValues(t, limit/test.n, let.Load())
				total := f.Total("s")
				require.EqualValues(t, limit, total.Quantity)
				require.Zero(t, total.Held)
				require.EqualValues(t, limit, m.billed(t, "f", "s"))
			})
		}
	}
}

// While windows end, and the meter is closed and opened again, every unit of the quota is
// let through once.
func TestExactlyTheLimitAcrossRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const limit = 10_000
	let := int64(0)
	for round := range 8 {
		m := open(t, func(c *Config) { c.Dir = dir })
		f := m.Feature("f", limited(license.Quota{Limit: limit}))
		require.Equal(t, let, f.Total("s").Quantity)
		most := int64(limit) / 7
		var here atomic.Int64
		flushed := make(chan error)
		go func() { flushed <- m.Flush(t.Context()) }() // settles, folds and deletes segments
		at64(func() bool {
			if here.Add(1) > most || !try(t, f, "s", 1) {
				return false
			}
			atomic.AddInt64(&let, 1)
			return true
		})
		require.NoError(t, <-flushed)
		require.Equal(t, let, f.Total("s").Quantity, "round %d", round)
		_, _, err := f.Begin(as("s"), Quantity(limit-let)) // dies with the process
		require.NoError(t, err)
		require.NoError(t, m.Shutdown(t.Context()))
	}
	require.EqualValues(t, limit, let)
}

// Counts by hand are never refused, and leave less for calls; none is missed, though
// they begin before there is a quota.
func TestCountsByHandBesideAQuota(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{InMemory, t.TempDir()} {
		m := open(t, func(c *Config) { c.Dir = dir })
		for round := range 50 {
			subject := fmt.Sprint("s", round)
			f := m.Feature(fmt.Sprint("f", round%2), limited(license.Quota{Limit: 1000}))
			var all sync.WaitGroup
			var let, byHand atomic.Int64
			for g := range 8 {
				all.Go(func() {
					counter, ctx := f.Counter(subject), context.Background()
					if g%2 == 1 {
						ctx = WithDimension(ctx, "g", fmt.Sprint(g))
					}
					for range 100 {
						if g < 4 {
							require.NoError(t, counter.Add(ctx, 1))
						} else {
							require.NoError(t, f.Add(ctx, subject, 1))
						}
						byHand.Add(1)
					}
				})
			}
			for range 4 {
				all.Go(func() {
					runtime.Gosched()
					for try(t, f, subject, 1) {
						let.Add(1)
					}
				})
			}
			all.Wait()
			total := f.Total(subject)
			require.Equal(t, let.Load()+byHand.Load(), total.Quantity)
			require.Zero(t, total.Held)
			n, _, _ := f.ledger.Total(subject)
			require.Equal(t, n, total.Quantity)
			require.LessOrEqual(t, let.Load(), int64(1000))
			require.GreaterOrEqual(t, total.Quantity, int64(1000))
			require.NoError(t, f.Add(t.Context(), subject, 5), "also past the limit")
			require.False(t, try(t, f, subject, 1))
		}
	}
}

// A verdict's quota may shrink, grow, go away, and say what others have used.
func TestQuotasOfVerdicts(t *testing.T) {
	t.Parallel()
	var quota atomic.Pointer[license.Quota]
	m := open(t, func(c *Config) {
		c.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			return license.Verdict{Status: license.Allowed, Subject: "s", Quota: quota.Load()}, nil
		})
	})
	f := m.Feature("f", limited(license.Quota{Limit: 1})) // not asked while verdicts have one
	lets := func(want int, q *license.Quota) {
		t.Helper()
		quota.Store(q)
		n := 0
		for n < 50 && try(t, f, "s", 1) {
			n++
		}
		require.Equal(t, want, n)
	}
	lets(5, &license.Quota{Limit: 5})
	lets(0, &license.Quota{Limit: 3})
	require.EqualValues(t, 3, f.Total("s").Limit)
	lets(2, &license.Quota{Limit: 7})
	lets(0, &license.Quota{Limit: 20, Used: 13})
	lets(3, &license.Quota{Limit: 20, Used: 10})
	require.Equal(t, Total{Quantity: 10, Used: 10, Limit: 20}, bare(f.Total("s")))
	lets(50, &license.Quota{Limit: -1})
	require.EqualValues(t, -1, f.Total("s").Limit)
	lets(0, nil)
	require.EqualValues(t, 1, f.Total("s").Limit)
	lets(0, &license.Quota{Limit: 0})
	lets(0, &license.Quota{Limit: 1 << 62, Used: 1<<63 - 1})
	lets(50, &license.Quota{Limit: 1, Soft: true})
	lets(50, &license.Quota{Limit: 1<<63 - 1, Used: 1 << 62})
	require.EqualValues(t, 10+50*3, m.billed(t, "f", "s"))
}

// bare is a total without its period.
func bare(t Total) Total {
	t.Start, t.End = time.Time{}, time.Time{}
	return t
}

func TestLimitFails(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]limitFunc{
		"error": func(context.Context, string) (license.Quota, error) { return license.Quota{}, errors.New("db down") },
		"panic": func(context.Context, string) (license.Quota, error) { panic("secret") },
	} {
		m := open(t)
		_, _, err := m.Feature("f", Limit(limit)).Begin(as("s"))
		require.Equal(t, license.Unavailable, asRefused(t, err).Reason, name)
		require.NotContains(t, fmt.Sprint(m.logs.all()), "secret\"")
		m = open(t, func(c *Config) { c.AllowUnknown = true })
		require.True(t, try(t, m.Feature("f", Limit(limit)), "s", 1))
	}
}

// Quotas bound what is added up.
func TestLimitsOfLevelsPanic(t *testing.T) {
	t.Parallel()
	m := open(t)
	for _, kind := range []sink.Kind{sink.Max, sink.Last} {
		name := fmt.Sprint("f ", kind)
		for option, o := range map[string]FeatureOption{"Limit": limited(license.Quota{Limit: 1}), "Thresholds": Thresholds(func(Threshold) {}, 80)} {
			declare := func() { m.Feature(name, Kind(kind), o) }
			for range 2 {
				require.PanicsWithValue(t, fmt.Sprintf("meter: feature %q: %s on a feature of kind %v, whose levels no call adds to; quotas bound features of kind sum", name, option, kind), declare)
			}
		}
		m.Feature(name, Kind(kind))
		require.Panics(t, func() { m.Feature(name, Kind(kind), limited(license.Quota{Limit: 1})) })
	}
}

// A Limit without a function is a mistake, such as a variable that was not set, and no
// way to have no quota.
func TestNoLimitFunctionPanics(t *testing.T) {
	t.Parallel()
	m := open(t)
	const why = `meter: feature "f": Limit needs a function; leave it out where there is none`
	require.PanicsWithValue(t, why, func() { m.Feature("f", Limit(nil)) })
	m.Feature("f", Limit(nil), limited(license.Quota{Limit: 1}))
	require.PanicsWithValue(t, why, func() { m.Feature("f", Limit(nil)) })
}

// A quota whose End came before its first call, in the running window, is one until that
// window ends, and then, too.
func TestQuotaThatHasJustEnded(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]time.Duration{"hour": time.Hour, "flush": OnFlush} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := open(t, slow(t), func(c *Config) { c.Window = window })
				time.Sleep(5 * time.Minute)
				end := time.Now().Add(-time.Minute)
				f := m.Feature("f", limited(license.Quota{Limit: 10, Start: end.AddDate(0, -1, 0), End: end}))
				for i := range 15 {
					require.Equal(t, i < 10, try(t, f, "s", 1))
				}
				require.NoError(t, m.Flush(t.Context()))
				for i := range 15 {
					require.Equal(t, i < 10, try(t, f, "s", 1))
				}
				require.NoError(t, m.Shutdown(t.Context()))
			})
		})
	}
}

// slow has so little to do that months pass quickly.
func slow(t *testing.T) func(*Config) {
	dir := t.TempDir()
	return func(c *Config) { c.Dir, c.Sync, c.Window = dir, time.Hour, time.Hour }
}

// A month's quota begins anew with the month; holds of calls that run go with them.
func TestMonthsQuota(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{time.Hour, 50 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			m := open(t, slow(t), func(c *Config) { c.Window = window })
			f := m.Feature("f", limited(license.Quota{Limit: 3}))
			require.True(t, try(t, f, "s", 1))
			_, long, err := f.Begin(as("s"), Quantity(2))
			require.NoError(t, err)
			require.False(t, try(t, f, "s", 1))
			end := f.Total("s").End
			require.Equal(t, time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC), end)
			time.Sleep(time.Until(end) - time.Second)
			require.False(t, try(t, f, "s", 1))
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, Total{Limit: 3, Held: 2}, bare(f.Total("s")))
			require.Equal(t, end, f.Total("s").Start)
			require.True(t, try(t, f, "s", 1))
			require.False(t, try(t, f, "s", 1))
			require.NoError(t, long.Commit())
			require.Equal(t, Total{Quantity: 3, Limit: 3}, bare(f.Total("s")))
			require.False(t, try(t, f, "s", 1))
			time.Sleep(30 * 24 * time.Hour) // idle: forgotten, and found again
			require.Equal(t, Total{Limit: -1}, bare(m.Feature("other").Total("s")))
			require.True(t, try(t, f, "other", 1))
			time.Sleep(time.Hour)
			synctest.Wait()
			require.True(t, try(t, f, "s", 1))
			require.Equal(t, Total{Quantity: 1, Limit: 3}, bare(f.Total("s")))
			require.NoError(t, m.Shutdown(t.Context()))
		})
	}
}
