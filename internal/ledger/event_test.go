package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// event counts one without dimensions, as tests like to.
func (f *Feature) event(subject, id string, n int64) error {
	return f.AddEvent(subject, nil, time.Time{}, "", id, n)
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
		require.NoError(t, f.AddEvent("acme", nil, time.Time{}, "elsewhere", "1", 6), "another scope's ID")
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
		require.NoError(t, f.AddEvent("acme", map[string]string{"region": "eu"}, time.Time{}, "", "1", 3))
		require.NoError(t, f.AddEvent("acme", map[string]string{"region": "us"}, time.Time{}, "", "1", 3))
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
