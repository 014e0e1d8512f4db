package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
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
