package ledger

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestEventsWithoutRoomAreNotSent fills the disk: a bill that leaves from memory would
// outlive the ID that it counted.
func TestEventsWithoutRoomAreNotSent(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, mode, dir, func(c *Config) { c.MaxDisk = 1 })
				f := feature(t, l, "report", sink.Sum)
				require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced)
				require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced, "still in memory alone")
				require.EqualValues(t, 3, totalOf(f, "acme"), "but counted, once")
				require.Error(t, l.Rotate(context.Background()))
				require.Empty(t, deliver(t, l, 0, sink.Delivered))
				require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced, "sealed, and still in memory alone")
				require.NoError(t, f.Add("acme", 10))
				require.Error(t, l.Rotate(context.Background()), "of the window before")
				require.EqualValues(t, 10, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"), "has no event")
				abandon(l)

				l = open(t, mode, dir)
				f = feature(t, l, "report", sink.Sum)
				require.NoError(t, f.event("acme", "1", 3))
				rotate(t, l)
				require.EqualValues(t, 3, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
			})
		})
	}
}

// TestEventsGoOutOnceThereIsRoom makes room, and dies once they were sent.
func TestEventsGoOutOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, mode, dir, func(c *Config) { c.MaxDisk = 1 })
				f := feature(t, l, "report", sink.Sum)
				require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced)
				require.Error(t, l.Rotate(context.Background()))
				l.store.max.Store(1 << 30)
				time.Sleep(5 * time.Second)
				require.EqualValues(t, 3, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
				require.NoError(t, f.event("acme", "1", 3), "safe now")
				abandon(l)
				l = open(t, mode, dir)
				f = feature(t, l, "report", sink.Sum)
				require.NoError(t, f.event("acme", "1", 3))
				require.ErrorIs(t, f.event("acme", "1", 4), ErrConflict)
				require.EqualValues(t, 3, totalOf(f, "acme"))
			})
		})
	}
}

// TestEventIsNotSafeWhileItIsSaved asks in the middle of the save.
func TestEventIsNotSafeWhileItIsSaved(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	l := open(t, "mapped", t.TempDir(), func(c *Config) {
		c.Sync, c.MaxDisk = SyncAlways, 1
		c.step = func(what string) error {
			if what == "write blocks" && slow.Load() {
				entered <- struct{}{}
				<-release
			}
			return nil
		}
	})
	f := feature(t, l, "report", sink.Sum)
	require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced)
	require.Error(t, l.Rotate(context.Background()))
	slow.Store(true)
	l.store.max.Store(1 << 30)
	<-entered // of the background's next try
	require.ErrorIs(t, f.event("acme", "1", 3), ErrUnsynced)
	slow.Store(false)
	close(release)
	require.Eventually(t, func() bool { return f.event("acme", "1", 3) == nil }, 10*time.Second, 10*time.Millisecond)
	require.EqualValues(t, 3, totalOf(f, "acme"))
}

// TestLostEventIsNotSafe loses the memory of an event that was not safe: nobody is
// told that it is, and when it comes again it counts.
func TestLostEventIsNotSafe(t *testing.T) {
	t.Parallel()
	for what, size := range cuts {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			dir := quickDir(t)
			l := open(t, "mapped", dir, func(c *Config) {
				c.Sync = SyncAlways
				c.step = func(what string) error {
					if broken.Load() && (what == "append journal" || what == "create "+journalSuffix) {
						return errDead
					}
					return nil
				}
			})
			needMapped(t, l)
			f := feature(t, l, "report", sink.Sum)
			for i := range 80 { // into the second page
				require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
			}
			broken.Store(true)
			require.ErrorIs(t, f.event("acme", "lost", 1), ErrUnsynced)
			unlock := holdSealing(t, l)
			require.NoError(t, os.Truncate(l.active.Load().path, size))
			broken.Store(false)
			require.ErrorIs(t, f.event("acme", "lost", 1), ErrUnsynced)
			require.ErrorIs(t, f.event("acme", "lost", 1), ErrUnsynced)
			unlock()
			require.Eventually(t, func() bool { return f.event("acme", "lost", 1) == nil }, 10*time.Second, 10*time.Millisecond)
			require.EqualValues(t, 81, totalOf(f, "acme"))
			abandon(l)
			l = open(t, "mapped", dir)
			f = feature(t, l, "report", sink.Sum)
			for i := range 80 {
				require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
			}
			require.NoError(t, f.event("acme", "lost", 1))
			require.EqualValues(t, 81, totalOf(f, "acme"))
			rotate(t, l)
			require.EqualValues(t, 81, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
		})
	}
}

// cuts are sizes that a file of more than a page of slots is cut to.
var cuts = map[string]int64{
	"to nothing":             0,
	"to its head":            headSize,
	"within a page":          headSize + 100,
	"through a word":         headSize + 128 + 3,
	"through a slot":         headSize + 128 + 20,
	"within the second page": headSize + 4096 + 100,
}

// holdSealing keeps windows from being sealed until unlock is called.
func holdSealing(t *testing.T, l *Ledger) (unlock func()) {
	l.rotating <- struct{}{}
	unlock = sync.OnceFunc(l.rotating.unlock)
	t.Cleanup(unlock)
	return unlock
}

func needMapped(t *testing.T, l *Ledger) {
	if !l.store.mapped {
		t.Skip("SKIPPED: no mapped files here")
	}
}

// TestLostEventsCountAgain cuts the file of the running window: what the journal has
// stays counted and remembered, what is lost is forgotten, and the totals say what
// is billed.
func TestLostEventsCountAgain(t *testing.T) {
	t.Parallel()
	for what, size := range cuts {
		for _, synced := range []bool{false, true} {
			t.Run(fmt.Sprint(what, "/synced behind the cut ", synced), func(t *testing.T) {
				t.Parallel()
				const safe, all = 80, 160 // and some that come behind the cut
				dir := quickDir(t)
				l := open(t, "mapped", dir, func(c *Config) { c.Sync = time.Hour })
				needMapped(t, l)
				f := feature(t, l, "report", sink.Sum)
				deliverTo := func(n int) {
					for i := range n {
						require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
					}
				}
				deliverTo(safe)
				require.NoError(t, f.Add("bolt", 7))
				seg := l.active.Load()
				require.NoError(t, seg.journal.sync())
				deliverTo(all)
				require.NoError(t, os.Truncate(seg.path, size))
				if synced {
					require.ErrorIs(t, seg.journal.sync(), ErrUnsynced)
				}
				for i := range all + 20 { // in what is left, or elsewhere; or they are known
					if err := f.event("acme", fmt.Sprint(i), 1); err != nil {
						require.ErrorIs(t, err, ErrUnsynced)
					}
				}
				_ = l.Rotate(context.Background())
				billed := map[string]int64{}
				agrees := func() {
					t.Helper()
					for _, r := range deliver(t, l, 0, sink.Delivered) {
						billed[r.Subject] += r.Quantity
					}
					require.Equal(t, billed["acme"], totalOf(f, "acme"))
					require.Equal(t, billed["bolt"], totalOf(f, "bolt"))
				}
				agrees()
				require.GreaterOrEqual(t, billed["acme"], int64(safe))
				require.EqualValues(t, 7, billed["bolt"])
				deliverTo(all + 20)
				_ = l.Rotate(context.Background())
				agrees()
				require.EqualValues(t, all+20, billed["acme"])
				abandon(l)
				l = open(t, "mapped", dir)
				f = feature(t, l, "report", sink.Sum)
				deliverTo(all + 20)
				rotate(t, l)
				require.Empty(t, deliver(t, l, 0, sink.Delivered), "all of them are remembered")
			})
		}
	}
}

// TestCutKeepsWhatTheJournalHas syncs behind a cut that has words read as zeros.
func TestCutKeepsWhatTheJournalHas(t *testing.T) {
	t.Parallel()
	for size, filled := range map[int64]bool{headSize + 20: false, headSize + 200: false, headSize + 30: true, headSize + 210: true} {
		l := open(t, "mapped", quickDir(t), func(c *Config) { c.Sync = time.Hour })
		needMapped(t, l)
		f := feature(t, l, "report", sink.Sum)
		peak := feature(t, l, "peak", sink.Max)
		for i := range 10 {
			require.NoError(t, f.Add(fmt.Sprint(i), 10))
			require.NoError(t, peak.Set(fmt.Sprint(i), 10))
		}
		seg := l.active.Load()
		require.NoError(t, seg.journal.sync())
		info, err := seg.file.Stat()
		require.NoError(t, err)
		require.NoError(t, os.Truncate(seg.path, size))
		if filled {
			require.NoError(t, os.Truncate(seg.path, info.Size()))
		}
		require.NoError(t, f.Add("9", 5), "in the last page")
		require.NoError(t, peak.Set("9", 5))
		_ = seg.journal.sync()
		_ = seg.journal.sync()
		_ = l.Rotate(context.Background())
		records := deliver(t, l, 0, sink.Delivered)
		for i := range 10 {
			s := fmt.Sprint(i)
			want := int64(10)
			if i == 9 {
				want = 15
			}
			require.Equal(t, want, sum(records, "report", s), "%d: %s", size, s)
			require.EqualValues(t, 10, sum(records, "peak", s), "%d: %s", size, s)
			require.Equal(t, want, totalOf(f, s))
			require.EqualValues(t, 10, totalOf(peak, s))
		}
	}
}

// TestUnsyncedEventsPinNoSegment holds on to no window for an event that never comes
// again.
func TestUnsyncedEventsPinNoSegment(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	l := open(t, "mapped", t.TempDir(), func(c *Config) {
		c.Sync = SyncAlways
		c.step = func(what string) error {
			if broken.Load() && (what == "append journal" || what == "create "+journalSuffix) {
				return errDead
			}
			return nil
		}
	})
	f := feature(t, l, "report", sink.Sum)
	broken.Store(true)
	require.ErrorIs(t, f.event("acme", "1", 1), ErrUnsynced)
	broken.Store(false)
	seg := weak.Make(l.active.Load())
	for range 3 {
		require.NoError(t, f.event("acme", fmt.Sprint(time.Now()), 1))
		rotate(t, l)
	}
	require.Eventually(t, func() bool { runtime.GC(); return seg.Value() == nil }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, f.event("acme", "1", 1))
}

// TestEventsCountThroughTallies counts between the end of a window and its sealing,
// when its counts are in nobody's total.
func TestEventsCountThroughTallies(t *testing.T) {
	t.Parallel()
	l := open(t, "memory", "")
	f := feature(t, l, "report", sink.Sum)
	tally, _, err := f.Reserve(nil, "acme", &Quota{Limit: 10}, 0, false)
	require.NoError(t, err)
	for i := range 5 {
		require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
	}
	require.EqualValues(t, 5, tally.Standing().Counted)
	unlock := holdSealing(t, l)
	old := l.active.Load()
	next := l.heapSegment(firstExtent)
	next.head.start, next.since = l.nextStart(old), time.Now()
	l.retire(old, next)
	for i := range 8 {
		require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
	}
	require.NoError(t, f.AddEvent("acme", map[string]string{"region": "eu"}, time.Time{}, "", "8", 1))
	require.EqualValues(t, 9, tally.Standing().Counted)
	l.sealRetired()
	unlock()
	require.EqualValues(t, 9, tally.Standing().Counted)
	require.EqualValues(t, 9, totalOf(f, "acme"))
	_, a, err := f.Reserve(tally, "acme", &Quota{Limit: 10}, 2, true)
	require.NoError(t, err)
	require.Equal(t, Refused, a)
}

// TestRoomForEventsAfterACut has what the events of a series may come to stand above
// what is theirs at any rate when its own word is lost.
func TestRoomForEventsAfterACut(t *testing.T) {
	t.Parallel()
	const most = 1 << 40
	l := open(t, "mapped", quickDir(t), func(c *Config) { c.Routes[0].MaxQuantity, c.Sync = most, SyncNever })
	needMapped(t, l)
	f := feature(t, l, "report", sink.Sum)
	require.NoError(t, f.Add("first", 1))
	require.NoError(t, f.Add("acme", 1))
	require.NoError(t, f.Add("acme", most/4*3+5))
	require.NoError(t, f.event("acme", "0", most/5))
	require.NoError(t, os.Truncate(l.active.Load().path, headSize+20))
	for i := range 4 {
		require.NoError(t, f.event("acme", fmt.Sprint(1+i), most/2))
	}
	_ = l.Rotate(context.Background())
	require.EqualValues(t, most/2*4+1, sum1(deliver(t, l, 0, sink.Delivered)), "and what was lost")
	for r := range l.Quarantine() {
		require.Failf(t, "it is more than the sink takes", "%v", r)
	}
}
