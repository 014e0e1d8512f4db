package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// orphan leaves a dead process's directory: a window folded, one decided on but
// not applied, one pending, and one that was being counted in.
func orphan(t *testing.T, mode, dir string) {
	var onlyPaper atomic.Bool
	l := open(t, mode, dir, func(c *Config) {
		c.step = func(what string) error {
			if onlyPaper.Load() && what != "append quarantine" && what != "sync quarantine" {
				return errDead
			}
			return nil
		}
	})
	synctest.Wait() // what Open tidies is tidy
	f := feature(t, l, "calls", sink.Sum)
	require.NoError(t, f.Add("acme", 5))
	rotate(t, l)
	deliver(t, l, 0, sink.Delivered)
	require.NoError(t, l.foldSettled())
	require.NoError(t, f.Add("acme", 7))
	rotate(t, l)
	deliver(t, l, 0, sink.Rejected)
	onlyPaper.Store(true)
	for r := range l.Quarantine() {
		require.Error(t, l.Settle(context.Background(), "main", r.ID, sink.Voided, "written, not applied"))
	}
	onlyPaper.Store(false)
	require.NoError(t, f.Add("acme", 11))
	require.NoError(t, l.active.Load().journal.sync())
	abandon(l)
}

func wantAdopted(t *testing.T, l *Ledger, where string) {
	require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 24, Pending: 12, Delivered: 5, Voided: 7}}, l.Books(), where)
	total, _, _ := feature(t, l, "calls", sink.Sum).Total("acme")
	require.EqualValues(t, 24, total, where)
}

// adoptAndDie adopts a dead process's directory, dies on the way, and does it again.
func adoptAndDie(t *testing.T, mode, base string, m *mortal) {
	where := fmt.Sprintf("died before step %d", m.left)
	own, theirs := filepath.Join(base, "own"), filepath.Join(base, "theirs")
	orphan(t, mode, theirs)
	time.Sleep(time.Minute)
	l := open(t, mode, own)
	require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 1))
	require.NoError(t, l.Close(context.Background()))

	cfg := testConfig(own, func(c *Config) { c.Adopt = filepath.Join(base, "*") })
	dying := cfg
	dying.step = m.step
	if l, err := openMode(dying, mode); err == nil {
		abandon(l)
	}
	if n := len(m.steps); n > 0 {
		where += " (" + m.steps[n-1] + ")"
	}
	l, err := openMode(cfg, mode)
	require.NoError(t, err, where)
	defer l.Close(context.Background())
	synctest.Wait()
	wantAdopted(t, l, where)
	require.NotContains(t, healthText(l), "adopt", where)
	_, err = os.Stat(filepath.Join(theirs, formatFile))
	require.ErrorIs(t, err, os.ErrNotExist, where)
	l.adoptOrphans()
	wantAdopted(t, l, where)
	require.NoError(t, l.Close(context.Background()))

	l, err = openMode(cfg, mode)
	require.NoError(t, err, where)
	defer l.Close(context.Background())
	synctest.Wait()
	wantAdopted(t, l, where)
	require.EqualValues(t, 12, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"), where)
	require.NoError(t, l.foldSettled())
	require.NoError(t, l.Health(), where)
}
