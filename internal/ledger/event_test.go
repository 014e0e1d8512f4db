package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// once counts an event without dimensions, as tests like to.
func (f *Feature) event(subject, id string, n int64) error {
	return f.AddEvent(subject, nil, "", id, n)
}

func totalOf(f *Feature, subject string) int64 {
	n, _, _ := f.Total(subject)
	return n
}

func TestEventCountsOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f, other := feature(t, l, "report", sink.Sum), feature(t, l, "other", sink.Sum)
		require.NoError(t, f.event("acme", "1", 3))
		require.NoError(t, f.event("acme", "1", 3))
		require.NoError(t, f.Add("acme", 10))
		require.NoError(t, f.event("acme", "2", 4))
		require.EqualValues(t, 17, totalOf(f, "acme"), "in the running window")
		rotate(t, l)
		require.NoError(t, f.event("acme", "1", 3), "seen in an earlier window")
		require.EqualValues(t, 17, totalOf(f, "acme"), "over two windows")
		require.NoError(t, other.event("acme", "1", 5), "another feature's ID")
		require.NoError(t, f.AddEvent("acme", nil, "elsewhere", "1", 6), "another scope's ID")
		require.ErrorIs(t, f.event("acme", "1", 4), ErrConflict, "another quantity")
		require.ErrorIs(t, f.event("bolt", "1", 3), ErrConflict, "another subject")
		require.EqualValues(t, 2, f.Duplicates())
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 3, "one a series and window")
		require.EqualValues(t, 23, sum(records, "report", "acme"))
		require.EqualValues(t, 5, sum(records, "other", "acme"))
		require.Zero(t, sum(records, "report", "bolt"))
		require.Equal(t, []Line{
			{Feature: "other", Route: "main", Accepted: 5, Delivered: 5},
			{Feature: "report", Route: "main", Accepted: 23, Delivered: 23, Duplicates: 2},
		}, l.Books())
		require.NoError(t, l.Health())
	})
}

func TestEventErrors(t *testing.T) {
	t.Parallel()
	l := open(t, "mapped", t.TempDir())
	f := feature(t, l, "report", sink.Sum)
	for _, id := range []string{"", "a\nb", "\x00", string([]byte{0xff}), strings.Repeat("i", MaxEventID+1)} {
		require.ErrorIs(t, f.event("acme", id, 1), ErrName, "%q", id)
	}
	require.NoError(t, f.event("acme", strings.Repeat("i", MaxEventID), 1))
	require.ErrorIs(t, f.event("", "1", 1), ErrName)
	require.ErrorIs(t, f.event("acme", "1", -1), ErrQuantity)
	require.ErrorIs(t, f.event("acme", "1", MaxQuantity+1), ErrQuantity)
	require.NoError(t, f.event("acme", "1", 0))
	require.NoError(t, f.event("acme", "1", 7), "what was refused, or nothing, is not remembered")
	require.ErrorIs(t, feature(t, l, "peak", sink.Max).event("acme", "1", 1), ErrKind)
	require.EqualValues(t, 8, totalOf(f, "acme"))
	require.NoError(t, l.Close(context.Background()))
	require.ErrorIs(t, f.event("acme", "1", 7), ErrClosed)
	require.ErrorIs(t, f.event("acme", "2", 7), ErrClosed)
}

// TestEventDimensions bills an event under its dimensions; when it comes again under
// others it is the same.
func TestEventDimensions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.AddEvent("acme", map[string]string{"region": "eu"}, "", "1", 3))
		require.NoError(t, f.AddEvent("acme", map[string]string{"region": "us"}, "", "1", 3))
		require.EqualValues(t, 3, totalOf(f, "acme"))
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 1)
		require.Equal(t, map[string]string{"region": "eu"}, records[0].Dimensions)
		require.EqualValues(t, 3, records[0].Quantity)
	})
}

// TestEventsAtTheSameTime delivers each ID from many goroutines, beside plain counts
// and the ends of windows.
func TestEventsAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			l := open(t, mode, t.TempDir())
			f := feature(t, l, "report", sink.Sum)
			const ids, tries = 2000, 8
			var counting sync.WaitGroup
			for range tries {
				counting.Go(func() {
					for i := range ids {
						if err := f.event(fmt.Sprint("s", i%3), fmt.Sprint(i), int64(i+1)); err != nil {
							t.Error(err)
						}
						if err := f.Add("s0", 1); err != nil {
							t.Error(err)
						}
					}
				})
			}
			for range 2 {
				require.NoError(t, l.Rotate(t.Context()))
			}
			counting.Wait()
			require.EqualValues(t, ids*(tries-1), f.Duplicates())
			require.NoError(t, l.Rotate(t.Context()))
			got := int64(0)
			for _, r := range deliver(t, l, 0, sink.Delivered) {
				got += r.Quantity
			}
			require.EqualValues(t, ids*(ids+1)/2+ids*tries, got)
			require.Equal(t, got, totalOf(f, "s0")+totalOf(f, "s1")+totalOf(f, "s2"))
		})
	}
}

// TestEventHoldsUpSealing: a slot that is written while its window is sealed would
// not be found, so sealing waits for the lock that events hold.
func TestEventHoldsUpSealing(t *testing.T) {
	t.Parallel()
	l := open(t, "memory", "")
	f := feature(t, l, "report", sink.Sum)
	require.NoError(t, f.event("acme", "0", 1))
	sh := f.plain.shard(f.plain.hash("acme"))
	sh.mu.Lock()
	counted := make(chan error, 1)
	go func() { counted <- f.event("acme", "1", 1) }()
	select {
	case <-counted:
		require.Fail(t, "it did not ask for the lock")
	case <-time.After(20 * time.Millisecond):
	}
	sh.mu.Unlock()
	require.NoError(t, <-counted)
}

// TestEventWaitsForTheFirst has an event come again while it is being made safe: who
// delivers it is told that it is counted only when it is.
func TestEventWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails ", fails), func(t *testing.T) {
			t.Parallel()
			var slow atomic.Bool
			entered, release := make(chan struct{}), make(chan struct{})
			l := open(t, "mapped", t.TempDir(), func(c *Config) {
				c.Sync = SyncAlways
				c.step = func(what string) error {
					if what != "sync journal" || !slow.Load() {
						return nil
					}
					entered <- struct{}{}
					<-release
					if fails {
						return errDead
					}
					return nil
				}
			})
			f := feature(t, l, "report", sink.Sum)
			require.NoError(t, f.event("acme", "0", 1))
			slow.Store(true)
			results := make(chan error, 2)
			go func() { results <- f.event("acme", "1", 1) }()
			<-entered
			go func() { results <- f.event("acme", "1", 1) }()
			select {
			case err := <-results:
				require.Fail(t, "returned before it was safe", "%v", err)
			case <-time.After(20 * time.Millisecond):
			}
			slow.Store(false)
			close(release)
			if fails { // the journal began a new file, and all is in there
				require.NoError(t, <-results)
				require.NoError(t, <-results)
			} else {
				require.NoError(t, <-results)
				require.NoError(t, <-results)
			}
			require.EqualValues(t, 1, f.Duplicates())
			require.EqualValues(t, 2, totalOf(f, "acme"))
		})
	}
}

// TestUnsyncedEventIsMadeSafeLater counts while the journal can't be written, and
// again, and once more when it can.
func TestUnsyncedEventIsMadeSafeLater(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	dir := t.TempDir()
	l := open(t, "heap", dir, func(c *Config) {
		c.Sync = SyncAlways
		c.step = func(what string) error {
			if broken.Load() && (what == "append journal" || what == "create "+journalSuffix) {
				return errDead
			}
			return nil
		}
	})
	f := feature(t, l, "report", sink.Sum)
	require.NoError(t, f.event("acme", "0", 1))
	broken.Store(true)
	require.ErrorIs(t, f.event("acme", "1", 2), ErrUnsynced)
	require.ErrorIs(t, f.event("acme", "1", 2), ErrUnsynced, "still not safe")
	require.EqualValues(t, 3, totalOf(f, "acme"), "but counted, once")
	broken.Store(false)
	require.NoError(t, f.event("acme", "1", 2))
	abandon(l)
	l = open(t, "heap", dir)
	f = feature(t, l, "report", sink.Sum)
	require.NoError(t, f.event("acme", "1", 2))
	require.EqualValues(t, 3, totalOf(f, "acme"))
}

// TestEventsSurvive kills and closes at every point of an event's life.
func TestEventsSurvive(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, "/killed ", killed), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					var l *Ledger
					again := func() *Feature {
						if killed && l != nil {
							abandon(l)
						} else if l != nil {
							require.NoError(t, l.Close(context.Background()))
						}
						l = open(t, mode, dir, func(c *Config) { c.Sync, c.EventWindow = SyncAlways, time.Hour })
						return feature(t, l, "report", sink.Sum)
					}
					check := func(f *Feature, what string) {
						t.Helper()
						for range 2 {
							require.NoError(t, f.event("acme", "1", 3), what)
							require.ErrorIs(t, f.event("acme", "1", 4), ErrConflict, what)
							require.ErrorIs(t, f.event("bolt", "1", 3), ErrConflict, what)
							require.EqualValues(t, 3, totalOf(f, "acme"), what)
						}
					}
					f := again()
					require.NoError(t, f.event("acme", "1", 3))
					check(f, "counted")
					check(again(), "reopened while its window ran")
					rotate(t, l)
					check(again(), "sealed")
					require.EqualValues(t, 3, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
					check(again(), "delivered")
					require.NoError(t, l.foldSettled())
					require.Len(t, l.sealedNow(), 1, "settled, and needed for its events")
					check(again(), "settled")
					time.Sleep(59 * time.Minute)
					l.tidy()
					check(again(), "just within the window")
					time.Sleep(17 * time.Minute)
					l.tidy()
					require.Empty(t, l.sealedNow(), "nothing needs it any more")
					require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 3, Delivered: 3}}, withoutDuplicates(l.Books()))
					f = again()
					require.NoError(t, f.event("acme", "1", 4), "forgotten")
					require.EqualValues(t, 7, totalOf(f, "acme"))
					require.NoError(t, l.Health())
				})
			})
		}
	}
}

func withoutDuplicates(lines []Line) []Line {
	for i := range lines {
		lines[i].Duplicates = 0
	}
	return lines
}

// TestEventMemoryForgets drops IDs a fourth of the window late at the latest.
func TestEventMemoryForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "memory", "", func(c *Config) { c.EventWindow = time.Hour })
		f := feature(t, l, "report", sink.Sum)
		for range 40 {
			for i := range 200 {
				require.NoError(t, f.event("acme", fmt.Sprint(time.Now().Unix(), "-", i), 1))
			}
			time.Sleep(10 * time.Minute)
			l.tidy()
		}
		remembered := 0
		for i := range l.events.shards {
			for _, g := range l.events.shards[i].generations {
				remembered += len(g.seen)
			}
		}
		require.GreaterOrEqual(t, remembered, 6*200)
		require.LessOrEqual(t, remembered, 8*200)
	})
}

// TestRefusedEventIsNotRemembered fills the disk: what is refused counts when it
// comes again and there is room.
func TestRefusedEventIsNotRemembered(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, func(c *Config) { c.MaxDisk, c.RefuseWhenFull = 1, true })
		f := feature(t, l, "report", sink.Sum)
		require.ErrorIs(t, f.event("acme", "1", 1), ErrFull)
		require.ErrorIs(t, f.event("acme", "1", 1), ErrFull)
		l.store.max.Store(1 << 30)
		time.Sleep(5 * time.Second)
		require.NoError(t, f.event("acme", "1", 1))
		require.NoError(t, f.event("acme", "1", 1))
		require.EqualValues(t, 1, totalOf(f, "acme"))
	})
}

// TestEventsWithoutRoom counts in memory while the disk is full, and remembers with
// what it counted there.
func TestEventsWithoutRoom(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, func(c *Config) { c.MaxDisk = 1 })
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.event("acme", "1", 1))
		require.ErrorIs(t, l.Health(), ErrFull)
		require.NoError(t, l.Close(context.Background()), "past the budget")

		l = open(t, mode, dir)
		f = feature(t, l, "report", sink.Sum)
		require.NoError(t, f.event("acme", "1", 1))
		require.EqualValues(t, 1, totalOf(f, "acme"))
	})
}

// TestEventsStayWithinARecord counts events and plain quantities of any size where a
// sink takes little in one record.
func TestEventsStayWithinARecord(t *testing.T) {
	t.Parallel()
	for _, most := range []int64{1, 2, 3, 7, 100, 1 << 31, 1<<40 - 1, 1 << 40, MaxQuantity} {
		eachMode(t, func(t *testing.T, mode string) {
			l := open(t, mode, t.TempDir(), func(c *Config) { c.Routes[0].MaxQuantity, c.Sync = most, SyncNever })
			f := feature(t, l, "report", sink.Sum)
			rng := rand.New(rand.NewPCG(uint64(most), 1))
			var want int64
			for i := range 60 {
				n := 1 + rng.Int64N(most)
				if rng.IntN(3) == 0 {
					n = 1 + rng.Int64N(max(1, most/8))
				}
				if want > 1<<53-n {
					break
				}
				want += n
				if rng.IntN(2) == 0 {
					require.NoError(t, f.Add("acme", n))
				} else {
					require.NoError(t, f.event("acme", fmt.Sprint(i), n))
					require.NoError(t, f.event("acme", fmt.Sprint(i), n))
				}
			}
			require.Equal(t, want, totalOf(f, "acme"))
			rotate(t, l)
			var got int64
			starts := make(map[time.Time]bool)
			for _, r := range deliver(t, l, 0, sink.Delivered) {
				require.LessOrEqual(t, r.Quantity, most)
				require.False(t, starts[r.Start], "one record a window")
				starts[r.Start] = true
				got += r.Quantity
			}
			require.Equal(t, want, got)
		})
	}
}

// TestHalfWrittenEvents lays down what a process leaves that dies between any two
// stores of an event: it is not counted and not remembered before the last.
func TestHalfWrittenEvents(t *testing.T) {
	t.Parallel()
	for stores := range 6 {
		t.Run(fmt.Sprint(stores, " stores"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := open(t, "mapped", dir, func(c *Config) { c.Sync = SyncNever })
			if !l.store.mapped {
				t.Skip("SKIPPED: no mapped files here")
			}
			f := feature(t, l, "report", sink.Sum)
			require.NoError(t, f.event("acme", "1", 3))
			seg := l.active.Load()
			id := newEventID("report", "", "2")
			e, block, err := seg.allocate(1)
			require.NoError(t, err)
			b := e.mem[(block-e.first)*blockSize:][:blockSize]
			primary := seg.cell(0).block
			for i, store := range []func(){
				func() { order.PutUint32(b[slotClaim:], 1) },
				func() { copy(b[slotEvent:], id[:]); order.PutUint32(b[slotPrimary:], primary) },
				func() { order.PutUint32(b[slotSum:], shapeSum(seg.head.uuid, block, eventShape, primary, id[:])) },
				func() { order.PutUint32(b[slotShape:], uint32(eventShape)) },
				func() { order.PutUint64(b[slotWord:], 5|wordSet) },
			} {
				if i < stores {
					store()
				}
			}
			abandon(l)
			l = open(t, "mapped", dir)
			f = feature(t, l, "report", sink.Sum)
			require.NoError(t, l.Health())
			before := int64(3)
			if stores == 5 {
				before = 8
			}
			require.Equal(t, before, totalOf(f, "acme"))
			require.NoError(t, f.event("acme", "2", 5))
			require.EqualValues(t, 8, totalOf(f, "acme"))
			require.NoError(t, f.event("acme", "1", 3))
			require.EqualValues(t, 8, totalOf(f, "acme"))
		})
	}
}

// TestDamagedEvents writes over one event of a sealed segment, then of its count.
func TestDamagedEvents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		at     int64
		counts bool // when it comes again
	}{
		"its ID":    {slotEvent + 3, true},
		"its count": {slotWord, false}, // perhaps it was billed: not again
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, "mapped", dir)
				f := feature(t, l, "report", sink.Sum)
				for i := range 5 {
					require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
				}
				rotate(t, l)
				require.EqualValues(t, 5, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
				path := l.sealedNow()[0].path
				require.NoError(t, l.Close(context.Background()))
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				id := newEventID("report", "", "2")
				at := strings.Index(string(data), string(id[:]))
				require.Positive(t, at)
				file, err := os.OpenFile(path, os.O_RDWR, 0)
				require.NoError(t, err)
				_, err = file.WriteAt([]byte{data[int64(at)-slotEvent+test.at] ^ 0x55}, int64(at)-slotEvent+test.at)
				require.NoError(t, err)
				require.NoError(t, file.Close())

				l = open(t, "mapped", dir)
				f = feature(t, l, "report", sink.Sum)
				require.ErrorContains(t, l.Health(), "damaged")
				was := totalOf(f, "acme")
				require.EqualValues(t, 4, was)
				for i := range 5 {
					require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
				}
				if test.counts {
					was++
				}
				require.Equal(t, was, totalOf(f, "acme"))
			})
		})
	}
}

// TestEventsTruncatedUnderTheMap cuts the active segment's file short: what was
// journaled stays counted and does not count again, and Health tells of the IDs that
// a restart forgets.
func TestEventsTruncatedUnderTheMap(t *testing.T) {
	t.Parallel()
	for what, size := range map[string]int64{"to nothing": 0, "within a page": headSize + 100, "within the second page": headSize + 4096 + 100} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := open(t, "mapped", quickDir(t))
			if !l.store.mapped {
				t.Skip("SKIPPED: no mapped files here")
			}
			f := feature(t, l, "report", sink.Sum)
			const old, all = 300, 600
			deliverAll := func(n int) {
				for i := range n {
					require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
				}
			}
			deliverAll(old)
			require.NoError(t, l.active.Load().journal.sync())
			require.NoError(t, os.Truncate(l.active.Load().path, size))
			deliverAll(all)
			_ = l.active.Load().journal.sync()
			deliverAll(all)
			_ = l.Rotate(context.Background())
			require.ErrorContains(t, l.Health(), "after a restart those events would be counted again")
			deliverAll(all)
			require.EqualValues(t, all, sum(deliver(t, l, 0, sink.Delivered), "report", "acme"))
		})
	}
}

// TestCopyKnowsItsEvents restores a backup, and adopts an orphan.
func TestCopyKnowsItsEvents(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "mapped", dir)
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.event("acme", "1", 3))
		rotate(t, l)
		require.NoError(t, f.event("acme", "2", 4))
		abandon(l)
		l = open(t, "mapped", copyDir(outside, dir))
		f = feature(t, l, "report", sink.Sum)
		require.NoError(t, f.event("acme", "1", 3))
		require.NoError(t, f.event("acme", "2", 4))
		require.EqualValues(t, 7, totalOf(f, "acme"))
	})
}

func TestAdoptionBringsEventsAlong(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				theirs := open(t, mode, filepath.Join(base, "theirs"), func(c *Config) { c.Sync = SyncAlways })
				f := feature(t, theirs, "report", sink.Sum)
				require.NoError(t, f.event("acme", "settled", 1))
				rotate(t, theirs)
				deliver(t, theirs, 0, sink.Delivered)
				require.NoError(t, theirs.foldSettled())
				require.NoError(t, f.event("acme", "waiting", 2))
				rotate(t, theirs)
				require.NoError(t, f.event("acme", "running", 4))
				abandon(theirs)
				adopting := func(c *Config) { c.Adopt, c.Sync = filepath.Join(base, "*"), SyncAlways }
				for range 2 {
					l := open(t, mode, filepath.Join(base, "ours"), adopting)
					require.NoError(t, l.Health())
					f = feature(t, l, "report", sink.Sum)
					for id, n := range map[string]int64{"settled": 1, "waiting": 2, "running": 4} {
						require.NoError(t, f.event("acme", id, n))
					}
					require.EqualValues(t, 7, totalOf(f, "acme"))
					require.NoError(t, l.Close(context.Background()))
				}
			})
		})
	}
}

// TestMergedEventsStayRemembered merges the windows of an outage.
func TestMergedEventsStayRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		l := open(t, "mapped", dir)
		f := feature(t, l, "report", sink.Sum)
		for i := range 5 {
			require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
			rotate(t, l)
		}
		time.Sleep(2 * time.Hour)
		l.tidy()
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 1, "merged")
		require.EqualValues(t, 5, records[0].Quantity)
		l.tidy()
		for range 2 {
			for i := range 5 {
				require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
			}
			rotate(t, l)
			require.Empty(t, deliver(t, l, 0, sink.Delivered))
			require.EqualValues(t, 5, totalOf(f, "acme"))
			require.NoError(t, l.Close(context.Background()))
			l = open(t, "mapped", dir)
			f = feature(t, l, "report", sink.Sum)
		}
		time.Sleep(31 * time.Hour)
		l.tidy()
		require.Empty(t, l.sealedNow())
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 5, Delivered: 5}}, l.Books())
	})
}

// TestEventsAgainstASet delivers at random, forgets at random, dies at random; a set
// knows what must have been counted.
func TestEventsAgainstASet(t *testing.T) {
	t.Parallel()
	programs := 12
	if testing.Short() {
		programs = 4
	}
	for seed := range programs {
		for _, mode := range modes[1:] {
			t.Run(fmt.Sprint(mode, "/", seed), func(t *testing.T) {
				t.Parallel()
				dir := quickDir(t)
				synctest.Test(t, func(t *testing.T) { againstASet(t, mode, dir, uint64(seed)) })
			})
		}
	}
}

func againstASet(t *testing.T, mode, dir string, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	const window = time.Hour
	type known struct {
		quantity int64
		at       time.Time
	}
	seen := make(map[string]known)
	var want, billed, counted int64
	var l *Ledger
	var f *Feature
	reopen := func() {
		l = open(t, mode, dir, func(c *Config) { c.Sync, c.EventWindow = SyncAlways, window })
		f = feature(t, l, "report", sink.Sum)
	}
	reopen()
	for range 600 {
		switch rng.IntN(12) {
		default:
			id, n := fmt.Sprint(rng.IntN(60)), 1+rng.Int64N(3)
			err := f.event("acme", id, n)
			before, ok := seen[id]
			again := billed+openUnits(l) == want
			switch {
			case !ok || !again:
				require.NoError(t, err)
				require.False(t, again, "%s was never counted", id)
				require.True(t, !ok || time.Since(before.at) > window, "%s counted again after %v", id, time.Since(before.at))
				seen[id], want = known{n, time.Now()}, want+n
				counted++
			case before.quantity == n:
				require.NoError(t, err)
			default:
				require.ErrorIs(t, err, ErrConflict)
			}
		case 0:
			n := rng.Int64N(5)
			require.NoError(t, f.Add("acme", n))
			want += n
		case 1:
			rotate(t, l)
		case 2:
			billed += sum(deliver(t, l, 0, sink.Delivered), "report", "acme")
			l.tidy()
		case 3:
			time.Sleep(time.Duration(rng.IntN(1200)) * time.Second)
		case 4:
			require.NoError(t, l.Close(context.Background()))
			reopen()
		case 5:
			abandon(l)
			reopen()
		}
		require.Equal(t, want, billed+openUnits(l))
	}
	rotate(t, l)
	billed += sum(deliver(t, l, 0, sink.Delivered), "report", "acme")
	require.Equal(t, want, billed)
	require.Greater(t, counted, int64(80), "IDs are forgotten, and count again")
	require.NoError(t, l.Health())
}

func openUnits(l *Ledger) (n int64) {
	for _, line := range l.Books() {
		n += line.Pending
	}
	return n
}

func TestEventShapesAreChecked(t *testing.T) {
	t.Parallel()
	require.True(t, eventShape.valid())
	require.True(t, eventShape.stripe())
	for _, s := range []shape{newShape(17, sink.Sum, flagStripe|flagEvent), newShape(16, sink.Sum, flagEvent), newShape(0, sink.Sum, flagStripe|flagEvent)} {
		require.False(t, s.valid())
		b := make([]byte, 4*blockSize)
		order.PutUint32(b[slotShape:], uint32(s))
		_, ok := decodeSlot(b, uuid{}, 0, false)
		require.False(t, ok)
	}
	require.NotEqual(t, newEventID("a", "b", "c"), newEventID("ab", "", "c"))
	require.NotEqual(t, newEventID("a", "", "bc"), newEventID("a", "b", "c"))
	require.False(t, slices.Equal(make([]byte, 16), func() []byte { id := newEventID("", "", ""); return id[:] }()))
}
