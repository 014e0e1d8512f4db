package ledger

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

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
