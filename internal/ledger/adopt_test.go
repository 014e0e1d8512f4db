package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

func TestAdoption(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			outside := t
			for n := 0; ; n++ {
				m := &mortal{left: n}
				synctest.Test(t, func(t *testing.T) { adoptAndDie(t, mode, quickDir(outside), m) })
				if !m.isDead() {
					require.Greater(t, n, 5)
					return
				}
			}
		})
	}
}

func TestAdoptionLeavesTheLivingAlone(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	alive := open(t, "mapped", filepath.Join(base, "alive"))
	require.NoError(t, feature(t, alive, "calls", sink.Sum).Add("acme", 5))
	require.NoError(t, os.Mkdir(filepath.Join(base, "foreign"), 0o700))
	l := open(t, "mapped", filepath.Join(base, "own"), func(c *Config) { c.Adopt = filepath.Join(base, "*") })
	require.NoError(t, l.Health())
	balance(t, l, 0)
	balance(t, alive, 5)
}

// TestAdoptionOfACopy names a backup of the own directory: its counts are here
// already.
func TestAdoptionOfACopy(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	own, backup := filepath.Join(base, "own"), filepath.Join(base, "backup")
	outside := t
	synctest.Test(t, func(t *testing.T) {
		orphan(t, "mapped", own)
		require.NoError(outside, os.CopyFS(backup, os.DirFS(own)))
		time.Sleep(time.Minute)
		l := open(t, "mapped", own, func(c *Config) { c.Adopt = filepath.Join(base, "*") })
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 23, Pending: 11, Delivered: 5, Voided: 7}}, l.Books())
		require.ErrorContains(t, l.Health(), "backup")
	})
}

func TestAdoptionAcrossFilesystems(t *testing.T) {
	t.Parallel()
	other := mountTmpfs(t, "size=16m")
	own := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		orphan(t, "mapped", filepath.Join(other, "theirs"))
		time.Sleep(time.Minute)
		l := open(t, "mapped", own, func(c *Config) { c.Adopt = filepath.Join(other, "*") })
		synctest.Wait()
		f := feature(t, l, "calls", sink.Sum)
		for range 3 {
			require.ErrorContains(t, l.Health(), "filesystem")
			require.FileExists(t, filepath.Join(other, "theirs", formatFile))
			total, _, _ := f.Total("acme")
			require.Zero(t, total, "what was not adopted is not counted here")
			balance(t, l, 0)
			l.adoptOrphans()
		}
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", filepath.Join(other, "theirs"))
		balance(t, l, 23)
	})
}

// The orphan died in the middle of a merge; adopting it fails once between the
// merged segment and its inputs. The merged one is sent and folded before the
// inputs follow.
func TestAdoptionSplitsNoMerge(t *testing.T) {
	t.Parallel()
	for i := range 30 {
		reached := false
		base := t.TempDir()
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { reached = splitMerge(t, base) })
		})
		if reached {
			return
		}
	}
}

func splitMerge(t *testing.T, base string) bool {
	own, theirs := filepath.Join(base, "own"), filepath.Join(base, "theirs")
	var phase atomic.Int32
	dead := open(t, "mapped", theirs, func(c *Config) {
		c.step = func(what string) error {
			switch {
			case phase.Load() == 1 && what == "sync head":
				phase.Store(2)
			case phase.Load() == 2:
				return errDead // killed after the merged file was complete
			}
			return nil
		}
	})
	f := feature(t, dead, "calls", sink.Sum)
	time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Second)))
	rotate(t, dead)
	for range 2 {
		require.NoError(t, f.Add("acme", 10))
		rotate(t, dead)
		time.Sleep(time.Minute)
	}
	synctest.Wait()
	time.Sleep(2 * time.Hour)
	phase.Store(1)
	dead.merge()
	abandon(dead)

	var moves atomic.Int32
	var healed atomic.Bool
	l := open(t, "mapped", own, func(c *Config) {
		c.Adopt = filepath.Join(base, "t*")
		c.step = func(what string) error {
			if what == "move segment" && moves.Add(1) >= 2 && !healed.Load() {
				return errors.New("EIO")
			}
			return nil
		}
	})
	synctest.Wait()
	if first := l.sealedNow(); len(first) != 1 || !first[0].head.merged {
		return false // another order
	}
	n := sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
	require.NoError(t, l.foldSettled())
	healed.Store(true)
	l.tidy() // folds the merged one, adopts the rest
	n += sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
	require.EqualValues(t, 20, n, "books %v", l.Books())
	return true
}

// Adoption may bring an older level after a newer one was sent: it must not be sent.
func TestAdoptedLastIsSuperseded(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		own, theirs := filepath.Join(base, "own"), filepath.Join(base, "theirs")
		dead := open(t, "mapped", theirs)
		require.NoError(t, feature(t, dead, "seats", sink.Last).Set("acme", 5))
		rotate(t, dead)
		time.Sleep(time.Minute)
		l := open(t, "mapped", own, func(c *Config) { c.Adopt = filepath.Join(base, "*") })
		synctest.Wait()
		require.NoError(t, feature(t, l, "seats", sink.Last).Set("acme", 7))
		rotate(t, l)
		require.Len(t, deliver(t, l, 0, sink.Delivered), 1)
		abandon(dead) // it dies only now
		l.tidy()
		require.Empty(t, deliver(t, l, 0, sink.Delivered))
	})
}

// A decision to resend counts once, also where its adoption failed and is repeated.
func TestAdoptionRepeatsNoDecision(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		own, theirs := filepath.Join(base, "own"), filepath.Join(base, "theirs")
		noDedupe := func(c *Config) { c.Routes[0].DedupeWindow = 0 }
		dead := open(t, "mapped", theirs, noDedupe)
		f := feature(t, dead, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		rotate(t, dead)
		deliver(t, dead, 0, sink.Delivered)
		require.NoError(t, dead.foldSettled())
		require.NoError(t, f.Add("acme", 7))
		rotate(t, dead)
		deliver(t, dead, 0, sink.InDoubt) // no dedupe: quarantined
		ids := held(dead, "main")
		require.Len(t, ids, 1)
		require.NoError(t, dead.Settle(context.Background(), "main", ids[0], sink.Pending, "biller has not got it"))
		abandon(dead)

		var bad atomic.Bool
		bad.Store(true)
		l := open(t, "mapped", own, noDedupe, func(c *Config) {
			c.Adopt = filepath.Join(base, "t*")
			c.step = func(what string) error {
				if bad.Load() && (what == "append totals" || what == "create totals") {
					return errors.New("no space left on device")
				}
				return nil
			}
		})
		synctest.Wait()
		// The one resend that the operator allowed: in doubt again, so quarantined again.
		require.Len(t, deliver(t, l, 0, sink.InDoubt), 1)
		require.Len(t, held(l, "main"), 1)
		bad.Store(false)
		l.tidy() // adopts again
		require.Empty(t, deliver(t, l, 0, sink.Delivered), "sent again without an operator")
		require.Len(t, held(l, "main"), 1)
	})
}

// An inconsistent backup: the segment was copied while the record was held, the
// quarantine after it was settled as pending and delivered.
func TestCopyRepeatsNoDecision(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		own, backup := filepath.Join(base, "own"), filepath.Join(base, "backup")
		day := func(c *Config) { c.Routes[0].DedupeWindow = 24 * time.Hour }
		l := open(t, "mapped", own, day)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 7))
		rotate(t, l)
		synctest.Wait()
		deliver(t, l, 0, sink.Rejected)
		require.Len(t, held(l, "main"), 1)
		require.NoError(t, os.CopyFS(backup, os.DirFS(own)))
		require.NoError(t, l.Settle(context.Background(), "main", held(l, "main")[0], sink.Pending, "fixed at the biller"))
		n := sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
		data, err := os.ReadFile(filepath.Join(own, quarantineFile))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(backup, quarantineFile), data, 0o600))
		require.NoError(t, l.Close(context.Background()))
		time.Sleep(48 * time.Hour) // past what the sink remembers
		l = open(t, "mapped", backup, day)
		synctest.Wait()
		n += sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
		require.EqualValues(t, 7, n)
	})
}

// TestAdoptionOfAnotherDestination leaves alone what is owed to another address, for
// this directory could not be opened with it.
func TestAdoptionOfAnotherDestination(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		theirs, own := filepath.Join(base, "theirs"), filepath.Join(base, "own")
		to := func(a string) func(*Config) { return func(c *Config) { c.Routes[0].Address = a } }
		l := open(t, "mapped", theirs, to("first"))
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
		rotate(t, l)
		require.NoError(t, l.Close(context.Background()))
		time.Sleep(time.Minute)
		adopting := func(c *Config) { c.Adopt = filepath.Join(base, "*") }
		for range 2 {
			l = open(t, "mapped", own, to("second"), adopting)
			synctest.Wait()
			require.ErrorContains(t, l.Health(), `usage is still owed to another address`)
			require.Empty(t, l.Books())
			require.NoError(t, l.Close(context.Background()))
		}
		l = open(t, "mapped", own, to("first"), adopting)
		synctest.Wait()
		require.NoError(t, l.Health())
		require.EqualValues(t, 5, l.Books()[0].Pending)
	})
}
