package ledger

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// copyRoutes are one that takes an ID twice without harm, and one for a day.
func copyRoutes(c *Config) {
	c.Routes = []Route{
		{Name: "forever", DedupeWindow: sink.Forever, Timeout: time.Second},
		{Name: "day", DedupeWindow: 24 * time.Hour, Timeout: time.Second},
	}
}

// copyDir restores a directory as a backup does: same bytes, other files.
func copyDir(t *testing.T, from string) (to string) {
	to = filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

func held(l *Ledger, route string) (ids []string) {
	for r := range l.Quarantine() {
		if r.Route == route {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func ids(records []sink.Record) (ids []string) {
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

// TestCopyStartsInDoubt copies a directory with a window delivered, one waiting,
// and one that was being sent and counted in when the process was killed.
func TestCopyStartsInDoubt(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		for _, killed := range []bool{false, true} {
			name := mode + "/closed"
			if killed {
				name = mode + "/killed"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir, outside, copied := t.TempDir(), t, ""
				synctest.Test(t, func(t *testing.T) {
					l := open(t, mode, dir, copyRoutes)
					f := feature(t, l, "calls", sink.Sum)
					require.NoError(t, f.Add("acme", 5))
					rotate(t, l)
					deliver(t, l, 0, sink.Delivered)
					deliver(t, l, 1, sink.Delivered)
					require.NoError(t, f.Add("acme", 7))
					rotate(t, l)
					sent, err := l.Take(1, 1, nil)
					require.NoError(t, err)
					require.Len(t, sent.Records, 1)
					require.NoError(t, f.Add("acme", 11))
					if killed {
						require.NoError(t, l.active.Load().journal.sync())
						abandon(l)
					} else {
						require.NoError(t, l.Close(context.Background()))
					}
					copied = copyDir(outside, dir)
				})
				synctest.Test(t, func(t *testing.T) { testOriginal(t, mode, dir) })
				synctest.Test(t, func(t *testing.T) { testCopy(t, mode, copied) })
			})
		}
	}
}

// testOriginal finds everything as it was left.
func testOriginal(t *testing.T, mode, dir string) {
	time.Sleep(time.Minute) // a bubble's clock begins anew
	l := open(t, mode, dir, copyRoutes)
	require.NotContains(t, healthText(l), "copy")
	require.EqualValues(t, 18, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	require.EqualValues(t, 18, sum(deliver(t, l, 1, sink.Delivered), "calls", "acme"), "one again, within the window, and one never sent")
	for _, line := range l.Books() {
		require.EqualValues(t, 23, line.Delivered)
		require.EqualValues(t, 23, line.Accepted)
	}
	require.NoError(t, l.Health())
}

func healthText(l *Ledger) string {
	if err := l.Health(); err != nil {
		return err.Error()
	}
	return ""
}

func testCopy(t *testing.T, mode, dir string) {
	time.Sleep(time.Minute) // a bubble's clock begins anew
	l := open(t, mode, dir, copyRoutes)
	require.Contains(t, healthText(l), "copy")
	for _, line := range l.Books() {
		require.Equal(t, Line{Feature: "calls", Route: line.Route, Accepted: 23, Delivered: 5, InDoubt: 18}, line)
	}
	// Where an ID is remembered for ever, doubt is cured by sending again.
	again := deliver(t, l, 0, sink.Delivered)
	require.EqualValues(t, 18, sum(again, "calls", "acme"))
	for _, r := range again {
		require.Greater(t, r.Attempt, 1)
	}
	// Where it is not, an operator must say that the original is gone.
	require.Empty(t, deliver(t, l, 1, sink.Delivered), "nobody knows when the original sent it first")
	require.ElementsMatch(t, ids(again), held(l, "day"))
	require.NoError(t, l.Close(context.Background()))

	// From now on these files are the original.
	l = open(t, mode, dir, copyRoutes)
	require.NotContains(t, healthText(l), "copy")
	waiting := held(l, "day")
	require.ElementsMatch(t, ids(again), waiting)
	require.NoError(t, l.Settle(context.Background(), "day", waiting[0], sink.Pending, "the original is gone"))
	require.NoError(t, l.Close(context.Background()))

	l = open(t, mode, dir, copyRoutes)
	synctest.Wait() // what Open tidies is tidy
	require.NotContains(t, healthText(l), "copy")
	require.Equal(t, waiting[1:], held(l, "day"), "what is settled is not in doubt again")
	require.Equal(t, waiting[:1], ids(deliver(t, l, 1, sink.Delivered)), "under the same ID")
	require.NoError(t, l.Settle(context.Background(), "day", waiting[1], sink.Voided, "billed by hand"))
	require.NoError(t, l.Health())
	require.NoError(t, l.foldSettled())
	for _, line := range l.Books() {
		require.EqualValues(t, 23, line.Accepted)
		require.EqualValues(t, 23, line.Delivered+line.Voided)
	}
}

// TestCopyRecoveredInTwoTries dies while a copy is being recovered: it must
// not pass for the original before its records are in doubt.
func TestCopyRecoveredInTwoTries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir, copyRoutes)
	require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
	require.NoError(t, l.Close(context.Background()))
	for n := 0; ; n++ {
		copied := copyDir(t, dir)
		m := &mortal{left: n}
		cfg := testConfig(copied, copyRoutes)
		cfg.step = m.step
		if l, err := Open(cfg); err == nil {
			abandon(l)
		}
		l, err := Open(testConfig(copied, copyRoutes))
		require.NoError(t, err)
		require.Empty(t, deliver(t, l, 1, sink.Delivered), "died before step %d", n)
		require.Len(t, held(l, "day"), 1)
		require.NoError(t, l.Close(context.Background()))
		if !m.isDead() {
			require.Greater(t, n, 3)
			return
		}
	}
}

// TestRenamedDirectoryIsNoCopy moves a directory, which keeps its files.
func TestRenamedDirectoryIsNoCopy(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		dir := filepath.Join(t.TempDir(), "old")
		l := open(t, mode, dir, copyRoutes)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
		require.NoError(t, l.active.Load().journal.sync())
		abandon(l)
		moved := filepath.Join(t.TempDir(), "new")
		require.NoError(t, os.Rename(dir, moved))
		l = open(t, mode, moved, copyRoutes)
		require.NoError(t, l.Health())
		require.Len(t, deliver(t, l, 1, sink.Delivered), 1)
	}
}
