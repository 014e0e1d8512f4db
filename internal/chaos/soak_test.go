package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

// load is what a process takes of its machine.
type load struct{ heap, goroutines, files, disk int64 }

func measure(t *testing.T, dir string) (l load) {
	t.Helper()
	runtime.GC()
	runtime.GC() // what the first one has found to be unreachable is gone now
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	l.heap, l.goroutines = int64(memory.HeapAlloc), int64(runtime.NumGoroutine())
	open, _ := os.ReadDir("/proc/self/fd") // elsewhere there are none
	l.files = int64(len(open))
	require.NoError(t, filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // gone meanwhile
		}
		if info, err := e.Info(); err == nil {
			l.disk += info.Size()
		}
		return nil
	}))
	return l
}

// TestSoak counts for ever the same load, by a sink that fails now and then, and finds
// that the process grows no more once it has run for a while. METER_SOAK is for how long;
// "1h" is the real thing.
func TestSoak(t *testing.T) { // not parallel: what others take would be measured, too
	lasts := 15 * time.Second
	if testing.Short() {
		lasts = 5 * time.Second
	}
	if text := os.Getenv("METER_SOAK"); text != "" {
		var err error
		lasts, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	var billed, outage atomic.Int64
	m, err := meter.Open(meter.Config{
		Dir: dir, Window: time.Second, Sync: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Identify: bySubject,
		Sinks: []meter.Route{{Name: "biller", Sink: sink.Func(func(_ context.Context, records []sink.Record) error {
			if outage.Load() == 1 {
				return fmt.Errorf("%w: an outage", sink.ErrNotApplied)
			}
			for _, r := range records {
				billed.Add(r.Quantity)
			}
			return nil
		})}},
	})
	require.NoError(t, err)
	calls := m.Feature("calls")
	var counted atomic.Int64
	end := time.Now().Add(lasts)
	var counting sync.WaitGroup
	for worker := range 4 {
		counting.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 0))
			for i := 0; time.Now().Before(end); i++ {
				who, n := subjectName(rng.Uint32N(2000)), 1+rng.Int64N(5)
				ctx := context.Background()
				if rng.IntN(4) == 0 {
					ctx = meter.WithDimension(ctx, "region", fmt.Sprint(rng.IntN(3)))
				}
				if err := calls.Add(ctx, who, n); err != nil {
					panic(err)
				}
				counted.Add(n)
				if i%256 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	var loads []load
	for i := 0; time.Now().Before(end); i++ {
		outage.Store(int64(i % 5 / 4)) // every fifth
		time.Sleep(min(lasts/30, 10*time.Second))
		loads = append(loads, measure(t, dir))
	}
	counting.Wait()
	outage.Store(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, m.Shutdown(ctx))
	require.Equal(t, counted.Load(), billed.Load())

	for what, of := range map[string]struct {
		value func(load) int64
		spare int64
	}{
		"bytes of heap": {func(l load) int64 { return l.heap }, 2 << 20},
		"goroutines":    {func(l load) int64 { return l.goroutines }, 5},
		"open files":    {func(l load) int64 { return l.files }, 5},
		"bytes of disk": {func(l load) int64 { return l.disk }, 4 << 20},
	} {
		third := len(loads) / 3
		before, after := middle(loads[third:2*third], of.value), middle(loads[2*third:], of.value)
		t.Logf("%-14s %10d, later %10d", what, before, after)
		require.LessOrEqual(t, after, before+before/4+of.spare, what)
	}
	t.Logf("%d units counted and billed in %v", counted.Load(), lasts)
}

func middle(loads []load, value func(load) int64) int64 {
	all := make([]int64, len(loads))
	for i, l := range loads {
		all[i] = value(l)
	}
	slices.Sort(all)
	return all[len(all)/2]
}
