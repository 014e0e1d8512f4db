package ledger

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestClockAhead counts under a clock that is an hour ahead and is then set
// right: nothing waits for the hour to pass, and no window goes back.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "mapped", dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		l.highWater.Store(time.Now().Add(time.Hour).Unix()) // as if it had been seen
		l.active.Load().head.start = l.highWater.Load()
		require.NoError(t, f.Add("ann", 1))
		before := time.Now()
		require.NoError(t, l.Rotate(context.Background()))
		require.Less(t, time.Since(before), 5*time.Second)
		require.NoError(t, f.Add("ann", 2))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.ErrorContains(t, l.Health(), "clock")
		require.NoError(t, f.Add("ann", 4))
		before = time.Now()
		require.NoError(t, l.Close(context.Background()))
		require.Less(t, time.Since(before), 5*time.Second)

		before = time.Now()
		l = open(t, "mapped", dir, minutely)
		require.Less(t, time.Since(before), 5*time.Second)
		records := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 7, sum(records, "calls", "ann"))
		for i, r := range records[1:] {
			require.True(t, r.Start.After(records[i].Start), "windows have seconds of their own")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.NoError(t, l.Health())
		require.NoError(t, l.Close(context.Background()))
	})
}

// TestFlushingOftenStaysNearTheClock uses up more windows than there are seconds.
func TestFlushingOftenStaysNearTheClock(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		for range 200 {
			require.NoError(t, f.Add("ann", 1))
			rotate(t, l)
			require.LessOrEqual(t, l.active.Load().head.start-time.Now().Unix(), int64(maxDriftMemory))
		}
	})
}

// TestFlushingAtOnceStaysNearTheClock flushes from many sides: they share windows
// instead of using up the seconds to come.
func TestFlushingAtOnceStaysNearTheClock(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		var flushing sync.WaitGroup
		for range 20 {
			flushing.Go(func() {
				for range 10 {
					require.NoError(t, f.Add("ann", 1))
					require.NoError(t, l.Rotate(context.Background()))
					require.LessOrEqual(t, l.active.Load().head.start-time.Now().Unix(), int64(maxDriftFlush))
				}
			})
		}
		flushing.Wait()
		require.EqualValues(t, 200, sum(deliver(t, l, 0, sink.Delivered), "calls", "ann"), "each found its count sealed")
	})
}
