package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// Bounds that could not be written are told of until they are on disk, whatever works
// meanwhile; and then a restart knows them.
func TestBoundsThatCantBeWritten(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"append periods", "sync bounds"} {
		t.Run(what, func(t *testing.T) {
			eachDirMode(t, func(t *testing.T, mode, dir string) {
				var failing, rewriting atomic.Bool
				l := open(t, mode, dir, func(c *Config) {
					c.Sync = SyncAlways
					c.step = func(step string) error {
						if failing.Load() && step == what || rewriting.Load() && step == "create periods" {
							return errors.New("input/output error")
						}
						return nil
					}
				})
				f := feature(t, l, "calls", sink.Sum)
				q := Quota{Limit: 10, Start: date(1, 1), End: date(3, 1)}
				failing.Store(true)
				rewriting.Store(true)
				require.Equal(t, 4, admitted(t, f, "s", fixed(q), 4), "counting goes on")
				require.ErrorContains(t, l.Health(), "bounds of a quota's period can't be kept")
				failing.Store(false)
				require.Equal(t, 2, admitted(t, f, "other", fixed(q), 2))
				time.Sleep(5 * time.Second)
				require.ErrorContains(t, l.Health(), "bounds of a quota's period can't be kept", "those of s are not")
				rewriting.Store(false)
				time.Sleep(5 * time.Second)
				require.NoError(t, l.Health())
				wantBounds(t, l, mode, dir, q)
			})
		})
	}
}

// A rewrite that fails anywhere leaves bounds where a restart finds them, and is tried
// again.
func TestRewriteOfBoundsFails(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"create periods", "write periods", "sync periods", "rename periods"} {
		t.Run(what, func(t *testing.T) {
			eachDirMode(t, func(t *testing.T, mode, dir string) {
				var failing atomic.Bool
				l := open(t, mode, dir, func(c *Config) {
					c.step = func(step string) error {
						if failing.Load() && step == what {
							return errors.New("input/output error")
						}
						return nil
					}
				})
				f := feature(t, l, "calls", sink.Sum)
				q := Quota{Limit: 10, Start: date(1, 1), End: date(3, 1)}
				require.Equal(t, 3, admitted(t, f, "s", fixed(q), 3))
				failing.Store(true)
				l.periods.mu.Lock()
				l.periods.least = -rewritePeriods // time for it
				l.periods.mu.Unlock()
				l.tidyPeriods()
				require.ErrorContains(t, l.Health(), "bounds of a quota's period can't be kept")
				require.Equal(t, 2, admitted(t, f, "other", fixed(q), 2))
				require.Equal(t, 1, admitted(t, f, "s", fixed(q), 1))
				require.ErrorContains(t, l.Health(), "bounds of a quota's period can't be kept")
				if mode == "mapped" {
					failing.Store(false)
					l.mendPeriods()
					require.NoError(t, l.Health())
				}
				wantBounds(t, l, mode, dir, q)
			})
		})
	}
}

// wantBounds requires that after a death everything is known of s, who used 4, and of
// other, who used 2, and of one who comes only now.
func wantBounds(t *testing.T, l *Ledger, mode, dir string, q Quota) {
	t.Helper()
	require.Equal(t, 1, admitted(t, feature(t, l, "calls", sink.Sum), "third", fixed(q), 1))
	require.NoError(t, l.active.Load().journal.sync())
	abandon(l)
	f := feature(t, open(t, mode, dir), "calls", sink.Sum)
	for subject, n := range map[string]int64{"s": 4, "other": 2, "third": 1} {
		tally := f.Tally(subject)
		require.NotNil(t, tally, subject)
		s := tally.Standing()
		require.Equal(t, []int64{n, q.Start, q.End}, []int64{s.Counted, s.Start, s.End}, subject)
	}
}

// A burst of subjects that are new shares syncs.
func TestBoundsAreSyncedTogether(t *testing.T) {
	t.Parallel()
	const subjects = 1000
	var syncs atomic.Int64
	l := open(t, "mapped", t.TempDir(), func(c *Config) {
		c.Sync = SyncAlways
		c.step = func(what string) error {
			if what == "sync bounds" {
				syncs.Add(1)
				time.Sleep(time.Millisecond)
			}
			return nil
		}
	})
	f := feature(t, l, "calls", sink.Sum)
	q := Quota{Limit: 10, Start: time.Now().Add(-time.Hour).Unix(), End: time.Now().Add(time.Hour).Unix()}
	var all sync.WaitGroup
	for i := range subjects {
		all.Go(func() {
			tally, _, err := f.Reserve(nil, fmt.Sprint("s", i), &q, 1, true)
			if err != nil {
				t.Error(err)
				return
			}
			l.periods.mu.Lock()
			safe := l.periods.synced
			l.periods.mu.Unlock()
			if safe == 0 {
				t.Error("admitted before its bounds were safe")
			}
			tally.Release(1)
		})
	}
	all.Wait()
	require.Positive(t, syncs.Load())
	require.Less(t, syncs.Load(), int64(subjects/5))
	require.Equal(t, l.periods.appended, l.periods.synced)
}

// The file is written anew while tallies come and go.
func TestPeriodsAreTidiedBesideRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir)
	f := feature(t, l, "calls", sink.Sum)
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				l.periods.mu.Lock()
				l.periods.broken = true
				l.periods.mu.Unlock()
				l.tidyPeriods()
				f.forgetIdle()
			}
		}
	})
	now := time.Now().Unix()
	var calls sync.WaitGroup
	for g := range 4 {
		calls.Go(func() {
			for i := range 300 {
				q := Quota{Limit: 10, Start: now - 60, End: now + 3600 + int64(i)}
				if !call(t, f, fmt.Sprint("s", g, "-", i), q, 1, 1) {
					t.Error("refused")
				}
			}
		})
	}
	calls.Wait()
	close(stop)
	all.Wait()
	require.NoError(t, l.Close(context.Background()))
	require.NoError(t, l.Health())
	l = open(t, "mapped", dir)
	f = feature(t, l, "calls", sink.Sum)
	for g := range 4 {
		for i := range 300 {
			s := f.Tally(fmt.Sprint("s", g, "-", i)).Standing()
			require.Equal(t, []int64{1, now - 60, now + 3600 + int64(i)}, []int64{s.Counted, s.Start, s.End})
		}
	}
}

// The file grows with what is learned, and shrinks to what still matters.
func TestPeriodsStaySmall(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "calls", sink.Sum)
		for i := range int64(30_000) {
			heldTo(t, f, "s", Quota{Limit: 10, Start: date(1, 1), End: date(2, 1) + i})
		}
		path := filepath.Join(dir, periodsFile)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Greater(t, info.Size(), int64(rewritePeriods))
		synctest.Wait()
		l.tidy()
		info, err = os.Stat(path)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(200))
		_, f = again(t, l, mode, dir)
		require.EqualValues(t, date(2, 1)+29_999, f.Tally("s").Standing().End)
	})
}

// A window ends where a period does, so that what is used after it is not counted in it.
func TestWindowsEndWithPeriods(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), func(c *Config) { c.Window = 10 * time.Minute })
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(20*time.Minute + time.Second)
		now := time.Now().Unix()
		for i, end := range []int64{now + 200, now + 325, now + 330, now + 900, now + 24*3600} {
			heldTo(t, f, fmt.Sprint("s", i), Quota{Limit: 5, Start: now - 60, End: end})
		}
		require.Equal(t, 5, admitted(t, f, "s0", fixed(Quota{Limit: 5, Start: now - 60, End: now + 200}), 100))
		time.Sleep(200 * time.Second)
		synctest.Wait()
		require.EqualValues(t, now+200, l.began.Load())
		require.Equal(t, 5, admitted(t, f, "s0", fixed(Quota{Limit: 5, Start: now + 200, End: now + 20_000}), 100))
		time.Sleep(125 * time.Second)
		synctest.Wait()
		require.EqualValues(t, now+325, l.began.Load())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.EqualValues(t, now+325, l.began.Load(), "not yet: a tenth of a window at least")
		time.Sleep(50 * time.Second)
		synctest.Wait()
		require.EqualValues(t, now+385, l.began.Load())
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		require.Len(t, l.periodEnds.all, 2)
		require.Len(t, l.periodEnds.known, 2)
	})
}

// Windows that only Flush ends are not cut.
func TestFlushAloneEndsWindows(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		began, now := l.began.Load(), time.Now().Unix()
		require.True(t, call(t, f, "s", Quota{Limit: 5, Start: now, End: now + 100}, 1, 1))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, began, l.began.Load())
	})
}
