package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestWindowsEndWhereARouteWants cuts a window where a bill ends, to the second.
func TestWindowsEndWhereARouteWants(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		minute := time.Now().Truncate(time.Minute).Add(time.Minute)
		time.Sleep(time.Until(minute))
		synctest.Wait()
		cut := minute.Add(25 * time.Second)
		l.EndWindowAt(0, cut)
		for range 59 {
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Second)
			if !time.Now().Before(cut) {
				l.EndWindowAt(0, time.Time{}) // who names it knows none any more
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 2, "%+v", records)
		require.Equal(t, cut.UTC(), records[0].End)
		require.Equal(t, cut.UTC(), records[1].Start)
		require.InDelta(t, 25, records[0].Quantity, 1)
		require.EqualValues(t, 59, sum(records, "calls", "acme"))
		require.Equal(t, minute.Add(time.Minute).UTC(), records[1].End, "the next end is the regular one")
	})
}

// TestWindowsBeginApart ends windows in every way there is, restarts included:
// their first seconds stay as far apart as a route wants.
func TestWindowsBeginApart(t *testing.T) {
	t.Parallel()
	const apart = 16
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng, dir := rand.New(rand.NewPCG(1, 2)), t.TempDir()
				change := func(c *Config) { c.MinWindow, c.Window, c.Instance = apart*time.Second, time.Minute, 3 }
				l := open(t, mode, dir, change)
				f := feature(t, l, "calls", sink.Sum)
				var records []sink.Record
				var counted int64
				for range 300 {
					n := 1 + rng.Int64N(9)
					require.NoError(t, f.Add("acme", n))
					counted += n
					time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
					switch rng.IntN(6) {
					case 0:
						rotate(t, l)
						records = append(records, deliver(t, l, 0, sink.Delivered)...)
					case 1:
						l.EndWindowAt(0, time.Now().Add(time.Duration(rng.IntN(20))*time.Second))
					case 2:
						require.NoError(t, l.Close(context.Background()))
						l = open(t, mode, dir, change)
						f = feature(t, l, "calls", sink.Sum)
					case 3:
						l.overflowed(l.active.Load(), ErrFull)
					}
				}
				rotate(t, l)
				records = append(records, deliver(t, l, 0, sink.Delivered)...)
				require.EqualValues(t, counted, sum(records, "calls", "acme"))
				require.Greater(t, len(records), 20)
				for i, r := range records {
					require.Equal(t, 3, r.Instance)
					if i > 0 {
						require.GreaterOrEqual(t, r.Start.Sub(records[i-1].Start), apart*time.Second, "%d", i)
					}
				}
			})
		})
	}
}

// TestMergedRecordsBeginAlone leaves some records of an hour with a history of
// their own: no merged record of their series begins where they do.
func TestMergedRecordsBeginAlone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		synctest.Wait()
		for range 30 {
			for subject := range 3 {
				require.NoError(t, f.Add(fmt.Sprint("subject-", subject), 1))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(l.sealedNow()) == 1 {
				attempt(t, l, sink.Pending) // one of three
			}
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Less(t, len(records), 3+30, "merged")
		starts := make(map[string]bool)
		for _, r := range records {
			at := fmt.Sprint(r.Subject, r.Start)
			require.False(t, starts[at], at)
			starts[at] = true
		}
		for subject := range 3 {
			require.EqualValues(t, 30, sum(records, "calls", fmt.Sprint("subject-", subject)))
		}
	})
}

// A flush that waits for a window's second does not keep the journal from being synced.
func TestFlushThatWaitsKeepsSyncing(t *testing.T) {
	t.Parallel()
	for _, flush := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := open(t, "mapped", dir, func(c *Config) {
				c.MinWindow, c.Window, c.Sync = 62*time.Second, time.Minute, time.Second
			})
			f := feature(t, l, "calls", sink.Sum)
			time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(70 * time.Second)))
			require.NoError(t, f.Add("acme", 1))
			rotate(t, l)
			synctest.Wait()
			require.NoError(t, f.Add("acme", 1))
			if flush {
				go l.Rotate(context.Background()) // Flush
				synctest.Wait()
			}
			l.EndWindowAt(0, time.Now().Add(20*24*time.Hour)) // a sink learned of a customer
			worst := 0
			stale := 0
			var last int64
			for range 58 {
				require.NoError(t, f.Add("acme", 1))
				time.Sleep(time.Second + time.Millisecond)
				synctest.Wait()
				j := l.active.Load().journal
				j.mu.Lock()
				end := j.end
				j.mu.Unlock()
				if stale++; end != last {
					stale = 0
				}
				last, worst = end, max(worst, stale)
			}
			require.LessOrEqual(t, worst, 3, "Config.Sync is 1 s, and a power cut would lose the counts of %d s (flush %v)", worst, flush)
		})
	}
}

// The wall clock was ahead by hours for a moment and is right again: windows go on
// ending, and do not wait until it has caught up.
func TestClockSetBackStopsNoWindow(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Second)
		l.raise(time.Now().Unix() + 6*3600) // as tick() does when the clock is ahead
		var sealedAt []time.Duration
		began := time.Now()
		for range 60 {
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Minute)
			synctest.Wait()
			if r := deliver(t, l, 0, sink.Delivered); len(r) > 0 {
				sealedAt = append(sealedAt, time.Since(began))
			}
		}
		require.Greater(t, len(sealedAt), 30, "in an hour of minutes, windows ended after %v; health: %v", sealedAt, l.Health())
	})
}

// A scheduler that names times that have come does not cut a window each time.
func TestEndsThatHavePassed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		n := 0
		for range 300 {
			l.EndWindowAt(0, time.Now().Add(-time.Hour))
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Second)
			synctest.Wait()
			n += len(deliver(t, l, 0, sink.Delivered))
		}
		require.Less(t, n, 20, "records in 5 minutes")
	})
}

// One failed write is tried again, also where Config.Sync is not shorter than Config.Window.
func TestUnsavedIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{time.Second, time.Minute} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			var sick atomic.Bool
			l := open(t, "mapped", dir, minutely, func(c *Config) {
				c.Sync = every
				c.step = func(what string) error {
					if sick.Load() {
						return errDead
					}
					return nil
				}
			})
			f := feature(t, l, "calls", sink.Sum)
			require.NoError(t, f.Add("acme", 5))
			time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(59500 * time.Millisecond)))
			sick.Store(true)
			time.Sleep(time.Second)
			sick.Store(false)
			var got int64
			for range 60 {
				require.NoError(t, f.Add("bolt", 1))
				time.Sleep(time.Minute)
				synctest.Wait()
				got += sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
			}
			t.Log("Sync", every, "delivered of the window", got, "health", l.Health())
			if got != 5 {
				t.Errorf("Sync %v: an hour after the disk was sick for a second its window still waits in memory", every)
			}
		})
	}
}

// TestMergesStayOnOneBill merges an hour within which a bill ends, also one process
// later: what was used before the end and after it stays apart.
func TestMergesStayOnOneBill(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		dir := t.TempDir()
		l := open(t, mode, dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		synctest.Wait()
		end := time.Now().Add(20*time.Minute + 25*time.Second)
		l.EndWindowAt(0, end)
		before := int64(0)
		for range 40 {
			if time.Now().Before(end) {
				before++
			}
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if mode != "memory" {
			require.NoError(t, l.Close(context.Background()))
			l = open(t, mode, dir, minutely)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		l.tidy()
		records := deliver(t, l, 0, sink.Delivered)
		require.Less(t, len(records), 10, "merged")
		got := int64(0)
		for _, r := range records {
			require.False(t, r.Start.Before(end) && r.End.After(end), "%v to %v", r.Start, r.End)
			if r.Start.Before(end) {
				got += r.Quantity
			}
		}
		require.Equal(t, before, got)
		require.EqualValues(t, 40, sum(records, "calls", "acme"))
	})
}

// TestEndsCloseToOthers ends windows where bills end even if a regular end, or a
// flush, comes so shortly before that the next window could not end there.
func TestEndsCloseToOthers(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, func(c *Config) { c.MinWindow = 45 * time.Second })
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		synctest.Wait()
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(50 * time.Second)
		end := time.Now().Add(40 * time.Second) // half a minute behind the regular end
		l.EndWindowAt(0, end)
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(20 * time.Second)
		require.NoError(t, f.Add("acme", 1))
		rotate(t, l) // a flush waits for the end, too
		require.False(t, time.Now().Before(end.Add(-time.Second)))
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Equal(t, end.UTC(), records[len(records)-1].Start)
		require.EqualValues(t, 4, sum(records, "calls", "acme"))
	})
}
