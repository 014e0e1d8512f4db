package ledger

import (
	"context"
	"runtime"
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
				dead := false
				cfg := testConfig(dir)
				cfg.step = func(what string) error {
					if dead && what != "append quarantine" {
						return errDead
					}
					return nil
				}
				l, err := openMode(cfg, mode)
				require.NoError(t, err)
				t.Cleanup(func() { l.Close(context.Background()) })
				require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
				rotate(t, l)
				time.Sleep(time.Second)
				synctest.Wait() // for the next segment
				before(t, l)
				dead = true
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
		merging := false
		settled := make(chan error, 1)
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			if merging && what == "create .segment" {
				merging = false
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
		id, merging = idOf(t, l.sealedNow()[1]), true
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
		watching, marks := false, 0
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			if watching && what == "write outcomes" {
				marks++
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
		watching = true
		b, err := l.Take(0, 2, nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, marks, 2)
		require.NoError(t, l.Settle(context.Background(), "main", idOf(t, l.sealedNow()[2]), sink.Voided, "a trial"))
		require.GreaterOrEqual(t, marks, 3)
		watching = false
		require.NoError(t, b.Resolve(make([]Result, 2)))
	})
}

// TestMergeWaitsForWhatCouldNotBeMarked lets marking an attempt fail, so that the disk
// does not know of it, and the process die after a merge.
func TestMergeWaitsForWhatCouldNotBeMarked(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		failing, files := false, 0
		cfg := testConfig(dir)
		cfg.step = func(what string) error {
			switch {
			case failing && what == "write outcomes":
				return errDead
			case failing && what == "create .segment":
				if files--; files < 0 {
					return errDead
				}
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
		time.Sleep(time.Second)
		synctest.Wait() // for the next segment
		failing = true
		_, err = l.Take(0, 1, nil)
		require.ErrorContains(t, err, "attempt not recorded, so not made")
		inputs[0].mu.Lock()
		inputs[0].paused = false
		inputs[0].mu.Unlock()
		files = 1 // the merged one
		l.tidying.Lock()
		_ = l.mergeHour(0, inputs)
		l.tidying.Unlock()
		abandon(l)

		l = open(t, mode, dir)
		require.EqualValues(t, 15, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	})
}
