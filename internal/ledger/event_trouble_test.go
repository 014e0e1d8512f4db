package ledger

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

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
		require.ErrorIs(t, f.event("acme", "1", 1), ErrUnsynced)
		require.ErrorIs(t, l.Health(), ErrFull)
		require.NoError(t, l.Close(context.Background()), "past the budget")

		l = open(t, mode, dir)
		f = feature(t, l, "report", sink.Sum)
		require.NoError(t, f.event("acme", "1", 1))
		require.EqualValues(t, 1, totalOf(f, "acme"))
	})
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
