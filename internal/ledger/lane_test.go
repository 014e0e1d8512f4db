package ledger

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// idOf is the ID of a segment's first record on its first route.
func idOf(t testing.TB, sd *sealed) string {
	t.Helper()
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	require.NoError(t, err)
	return sd.recordID(img.slots[0], 0)
}

// quiet waits until the next segment is prepared and everything is tidy.
func quiet() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// TestDecisionOnWhatWaitsIsCarriedOut kills the process between an operator's
// decision on paper and the slot, for a record that was not in quarantine.
func TestDecisionOnWhatWaitsIsCarriedOut(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*testing.T, *Ledger){
		"never attempted": func(*testing.T, *Ledger) {},
		"attempted, and found so by the next process": func(t *testing.T, l *Ledger) {
			// Of an outcome that sent it back to pending, a power cut can leave the
			// attempt alone.
			sd := l.sealedNow()[0]
			sd.mu.Lock()
			defer sd.mu.Unlock()
			img, err := sd.load()
			require.NoError(t, err)
			sd.set(img.slots[0], func(o *outcomes) { o.states[0], o.first[0] = attempted, 1 })
			require.NoError(t, sd.persist(img.slots[:1:1], true))
			sd.set(img.slots[0], func(o *outcomes) { o.states[0] = pending })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDiskMode(t, func(t *testing.T, mode, dir string) {
				var dead atomic.Bool
				cfg := testConfig(dir)
				cfg.step = func(what string) error {
					if dead.Load() && what != "append quarantine" {
						return errDead
					}
					return nil
				}
				l, err := openMode(cfg, mode)
				require.NoError(t, err)
				t.Cleanup(func() { l.Close(context.Background()) })
				require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
				rotate(t, l)
				quiet()
				before(t, l)
				dead.Store(true)
				require.ErrorContains(t, l.Settle(context.Background(), "main", idOf(t, l.sealedNow()[0]), sink.Voided, "a trial"), "takes effect at the next Open")
				abandon(l)

				l = open(t, mode, dir)
				require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 5, Voided: 5}}, l.Books())
				require.Empty(t, deliver(t, l, 0, sink.Delivered))
			})
		})
	}
}

// TestMergeAndDecisionDoNotOverlap has an operator write a record off while a merge
// has summed it up and not yet marked it.
func TestMergeAndDecisionDoNotOverlap(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		var l *Ledger
		var id string
		var merging atomic.Bool
		settled := make(chan error, 1)
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			if what == "create .segment" && merging.CompareAndSwap(true, false) {
				go func() { settled <- l.Settle(context.Background(), "main", id, sink.Voided, "a trial") }()
				for range 1000 {
					runtime.Gosched() // it may not have come far enough to show the overlap: the test fails less then, never more
				}
			}
			return nil
		}
		l, err := openMode(cfg, mode)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close(context.Background()) })
		f := feature(t, l, "calls", sink.Sum)
		for range 2 {
			require.NoError(t, f.Add("acme", 5))
			rotate(t, l)
		}
		quiet()
		id = idOf(t, l.sealedNow()[1])
		merging.Store(true)
		l.tidying.Lock()
		require.NoError(t, l.mergeHour(0, l.sealedNow()))
		l.tidying.Unlock()

		require.ErrorIs(t, <-settled, sink.ErrUnknownRecord, "it stands in another record now")
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 10, Pending: 10}}, l.Books())
		require.EqualValues(t, 10, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	})
}

// TestMergeTakesNothingThatIsBeingMarked: a merge that found a record attempted, of
// which the disk does not know yet, would leave segments by which the next process
// takes that record for a part of the merged one.
func TestMergeTakesNothingThatIsBeingMarked(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		var l *Ledger
		var watching atomic.Bool
		var marks atomic.Int32
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			if watching.Load() && what == "write outcomes" {
				marks.Add(1)
				if l.lanes[0].mu.TryLock() {
					l.lanes[0].mu.Unlock()
					t.Error("a merge could come between")
				}
			}
			return nil
		}
		l, err := openMode(cfg, mode)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close(context.Background()) })
		f := feature(t, l, "calls", sink.Sum)
		for range 3 {
			require.NoError(t, f.Add("acme", 5))
			rotate(t, l)
		}
		quiet()
		watching.Store(true)
		b, err := l.Take(0, 2, nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, marks.Load(), int32(2))
		require.NoError(t, l.Settle(context.Background(), "main", idOf(t, l.sealedNow()[2]), sink.Voided, "a trial"))
		require.GreaterOrEqual(t, marks.Load(), int32(3))
		watching.Store(false)
		require.NoError(t, b.Resolve(make([]Result, 2)))
	})
}

// TestMergeWaitsForWhatCouldNotBeMarked lets marking an attempt fail, so that the disk
// does not know of it, and the process die after a merge.
func TestMergeWaitsForWhatCouldNotBeMarked(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		var failing atomic.Bool
		var files atomic.Int32 // that can still be made
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			switch {
			case failing.Load() && what == "write outcomes":
				return errDead
			case failing.Load() && what == "create .segment" && files.Add(-1) < 0:
				return errDead
			}
			return nil
		}
		l, err := openMode(cfg, mode)
		require.NoError(t, err)
		f := feature(t, l, "calls", sink.Sum)
		for range 3 {
			require.NoError(t, f.Add("acme", 5))
			rotate(t, l)
		}
		inputs := l.sealedNow()
		inputs[0].mu.Lock()
		inputs[0].paused = true // as one that could not be read for a moment: only later ones are taken
		inputs[0].mu.Unlock()
		quiet()
		failing.Store(true)
		_, err = l.Take(0, 1, nil)
		require.ErrorContains(t, err, "attempt not recorded, so not made")
		inputs[0].mu.Lock()
		inputs[0].paused = false
		inputs[0].mu.Unlock()
		files.Store(1) // the merged one
		l.tidying.Lock()
		_ = l.mergeHour(0, inputs)
		l.tidying.Unlock()
		abandon(l)

		l = open(t, mode, dir)
		require.EqualValues(t, 15, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	})
}
