package ledger

import (
	"context"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func sleepTo(month, day, hour, minute, second int) time.Time {
	at := time.Date(2000, time.Month(month), day, hour, minute, second, 0, time.UTC)
	time.Sleep(time.Until(at))
	return at
}

// An event that is reported in its month, and waits for the next window because its
// record is full, stays in its month.
func TestTimedEventStaysInItsMonthWhenItsRecordIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sleepTo(1, 31, 23, 59, 30)
		l := open(t, "memory", "", minutely, func(c *Config) {
			c.MinWindow = 62 * time.Second
			c.Routes[0].MaxQuantity = 10
		})
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.AddEvent("acme", nil, time.Now(), "", "1", 1))
		time.Sleep(10 * time.Second)
		at := time.Now() // 23:59:40
		require.NoError(t, f.AddEvent("acme", nil, at, "", "2", 10))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			require.Equal(t, time.January, r.Start.UTC().Month(), "%d units used at %v are in the window that begins at %v", r.Quantity, at.UTC(), r.Start)
		}
	})
}

// The window ends between the choice of the series and the count: it is chosen anew.
func TestWindowEndsBetweenTimeAndCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sleepTo(1, 31, 23, 59, 10)
		l := open(t, "memory", "", minutely)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("other", 1))
		time.Sleep(49*time.Second + 900*time.Millisecond)
		at := time.Now()                      // 23:59:59.9
		s, err := f.SeriesAt("acme", nil, at) // AddEvent, step by step
		require.NoError(t, err)
		time.Sleep(time.Second)
		synctest.Wait()
		_, err = s.addEvent(&event{id: newEventID("calls", "", "1"), at: at, n: 5, sum: 1})
		require.ErrorIs(t, err, errPassed)
		require.NoError(t, f.AddEvent("acme", nil, at, "", "1", 5))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			require.Equal(t, time.January, r.Start.UTC().Month(), "%d units used at %v are in the window that begins at %v", r.Quantity, at.UTC(), r.Start)
		}
	})
}

// A bill ends at 10:20:30 and the running windows are cut there. So are those of what is
// reported later.
func TestBackdatedWindowKeepsToOneBill(t *testing.T) {
	t.Parallel()
	for _, window := range []time.Duration{time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			sleepTo(1, 10, 10, 19, 30)
			end := time.Date(2000, 1, 10, 10, 20, 30, 0, time.UTC)
			l := open(t, "memory", "", func(c *Config) { c.Window, c.Routes[0].Ends = window, true })
			l.EndWindowAt(0, end)
			f := feature(t, l, "calls", sink.Sum)
			at := sleepTo(1, 10, 10, 20, 10)
			require.NoError(t, f.Add("acme", 1))
			sleepTo(1, 10, 10, 22, 0)
			require.NoError(t, f.Add("acme", 1))
			if window == time.Hour {
				sleepTo(1, 10, 11, 0, 5)
			}
			require.NoError(t, f.AddEvent("acme", nil, at, "", "late", 100))
			require.NoError(t, f.AddEvent("acme", nil, end.Add(5*time.Second), "", "late2", 1000))
			time.Sleep(window)
			rotate(t, l)
			synctest.Wait()
			for _, r := range deliver(t, l, 0, sink.Delivered) {
				last := r.End.Add(-time.Second) // where Stripe's sinks put it
				if r.Start.Before(end) && !last.Before(end) {
					t.Errorf("window %v: %d units in [%v, %v) are on both sides of the bill's end %v", window, r.Quantity, r.Start, r.End, end)
				}
			}
		})
	}
}

// A quota's period has ended, and nobody has asked since. A late event of the new period
// is the first that comes: it counts there.
func TestLateUsageOfANewPeriodCounts(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				sleepTo(1, 10, 10, 0, 0)
				hour := func(c *Config) { c.Window = time.Hour }
				l := open(t, "mapped", dir, hour)
				f := feature(t, l, "calls", sink.Sum)
				end := time.Date(2000, 1, 10, 10, 30, 0, 0, time.UTC)
				q := Quota{Limit: 10, Start: end.Unix() - 86400, End: end.Unix()}
				require.Equal(t, 1, admitted(t, f, "acme", fixed(q), 1))
				sleepTo(1, 10, 11, 5, 0)
				synctest.Wait()
				if restart {
					_, f = again(t, l, "mapped", dir, hour)
				}
				at := time.Date(2000, 1, 10, 10, 45, 0, 0, time.UTC)
				require.NoError(t, f.AddEvent("acme", nil, at, "", "late", 10))
				q2 := Quota{Limit: 10, Start: end.Unix(), End: end.Unix() + 86400}
				require.EqualValues(t, 10, heldTo(t, f, "acme", q2).Counted)
				require.Zero(t, admitted(t, f, "acme", fixed(q2), 100), "calls beyond the hard limit")
			})
		})
	}
}

// After a long outage the records are merged, and those with a time of their own are
// still found by it.
func TestRecordsOfAMergedTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		sleepTo(1, 10, 10, 0, 0)
		l := open(t, "mapped", dir, minutely, retaining)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		sleepTo(1, 10, 10, 40, 5)
		at := time.Date(2000, 1, 10, 10, 31, 0, 0, time.UTC)
		require.NoError(t, f.used("acme", at, 5))
		sleepTo(1, 10, 10, 50, 5)
		require.NoError(t, f.Add("acme", 1))
		sleepTo(1, 10, 10, 55, 5)
		count := func() (n int64) {
			records, err := l.Records("main", at.Add(-time.Minute), at.Add(time.Minute))
			require.NoError(t, err)
			for r := range records {
				n += r.Quantity
			}
			return n
		}
		require.EqualValues(t, 5, count())
		sleepTo(1, 10, 12, 30, 5)
		synctest.Wait()
		require.EqualValues(t, 5, count(), "after the merge")
	})
}

// A record that is taken back by its biller is not alone in its window if more was
// reported of it later, and settled long since.
func TestNotAloneAfterReopen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sleepTo(1, 10, 10, 0, 0)
		l := open(t, "memory", "", minutely, confirming, func(c *Config) {
			c.Routes[0].DedupeWindow, c.Routes[0].Confirm, c.Routes[0].Verifies = 0, time.Hour, true
		})
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 3))
		at := time.Now()
		sleepTo(1, 10, 10, 1, 5)
		synctest.Wait()
		// the first is delivered at 10:30, the late one right away, as it may be where Match or an outage says so
		require.NoError(t, f.used("acme", at, 3))
		sleepTo(1, 10, 10, 2, 5)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 2)
		var first sink.Record
		for _, r := range records {
			if !r.Backdated {
				first = r
			}
		}
		late := l.sealedNow()[1]
		late.mu.Lock()
		late.confirm = time.Now() // as where it was delivered earlier than the other
		late.mu.Unlock()
		time.Sleep(time.Minute)
		l.tidy()
		require.Len(t, l.sealedNow(), 2, "it may be asked what else was used")
		require.NoError(t, l.Reopen("main", first.ID, "x"))
		require.NoError(t, l.Settle(context.Background(), "main", first.ID, sink.Pending, "again"))
		deliver(t, l, 0, sink.InDoubt)
		doubts := l.Doubts(0)
		require.Len(t, doubts, 1)
		require.False(t, doubts[0].Alone)
	})
}

// What a cut took is brought back in the month in which it was used.
func TestMendingCountsInTheRightMonth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir, func(c *Config) { c.Sync = time.Hour })
	needMapped(t, l)
	f := feature(t, l, "report", sink.Sum)
	require.NoError(t, f.Add("other", 1)) // its slot comes first
	first, _ := monthBounds(monthOf(time.Now().Unix()))
	require.NoError(t, f.used("acme", first.Add(-time.Hour), 10))
	require.Zero(t, totalOf(f, "acme"))
	seg := l.active.Load()
	require.NoError(t, seg.journal.sync())
	require.NoError(t, os.Truncate(seg.path, headSize+20))
	require.NoError(t, f.used("acme", first.Add(-time.Hour), 5))
	_ = seg.journal.sync()
	_ = l.Rotate(context.Background())
	records := deliver(t, l, 0, sink.Delivered)
	require.EqualValues(t, 15, sum(records, "report", "acme"))
	require.Zero(t, totalOf(f, "acme"), "it was used last month")
}

// A record that waits for a person keeps no windows of others from being folded.
func TestQuarantinedRecordKeepsNoLateWindows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		now := midMonth()
		l := open(t, "mapped", dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("held", 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		deliver(t, l, 0, sink.Rejected)
		for range 200 {
			require.NoError(t, f.used("acme", now.Add(-time.Hour), 1))
			time.Sleep(time.Minute)
			synctest.Wait()
			deliver(t, l, 0, sink.Delivered)
		}
		time.Sleep(48 * time.Hour)
		l.tidy()
		require.Len(t, l.sealedNow(), 1, "all but one are settled, and of another subject")
	})
}

// Some of these wrap around inside of package time.
func TestHugeTimes(t *testing.T) {
	t.Parallel()
	l := open(t, "memory", "", minutely)
	f := feature(t, l, "calls", sink.Sum)
	for i, at := range []time.Time{
		time.Unix(1<<63-1, 0), time.Unix(-1<<63, 0), time.Unix(1<<62, 999), time.UnixMilli(1<<63 - 1), time.UnixMilli(-1 << 63), time.UnixMicro(1<<63 - 1),
		time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(1<<40, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1<<40, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Unix(1<<63-62135596801, 0), time.Unix(1<<63-62135596800, 0),
	} {
		err := f.AddEvent("acme", nil, at, "", fmt.Sprint(i), 1)
		if err == nil {
			t.Errorf("%d: unix %d was counted", i, at.Unix())
		} else {
			require.ErrorIs(t, err, ErrTime)
		}
	}
	require.NoError(t, f.AddEvent("acme", nil, time.Unix(0, 1), "", "1970", 1))
}
