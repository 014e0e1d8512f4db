package ledger

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// failing fails writes of outcomes and new segment files while on.
func failing(on *atomic.Bool) func(*Config) {
	return func(c *Config) {
		c.step = func(what string) error {
			if on.Load() && (what == "write outcomes" || strings.HasPrefix(what, "create")) {
				return errors.New("EIO, or too many open files")
			}
			return nil
		}
	}
}

// The merged file is complete, but the merged segments can't be marked as such.
func TestMergeWhoseMarksCantBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var armed, bad atomic.Bool
		l := open(t, "mapped", dir, func(c *Config) { // OnFlush: the test rotates
			c.step = func(what string) error {
				switch {
				case armed.Load() && what == "sync head":
					bad.Store(true)
				case bad.Load() && (what == "write outcomes" || what == "create .segment"):
					return errors.New("EIO")
				}
				return nil
			}
		})
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Second)))
		rotate(t, l) // the window begins now
		for i := range 3 {
			require.NoError(t, f.Add("acme", 10))
			require.NoError(t, f.Add("bolt", 1))
			rotate(t, l)
			if i == 0 { // the attempt that found out about the outage
				b, err := l.Take(0, 1, nil)
				require.NoError(t, err)
				require.NoError(t, b.Resolve([]Result{{Outcome: sink.Pending}}))
			}
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		armed.Store(true)
		l.tidy()
		require.True(t, bad.Load(), "nothing was merged")
		armed.Store(false)
		bad.Store(false)
		l.tidy()
		recs := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 33, l.Books()[0].Delivered, "the merge waits for the next Open")
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		recs = append(recs, deliver(t, l, 0, sink.Delivered)...)
		require.EqualValues(t, 30, sum(recs, "calls", "acme"))
		require.EqualValues(t, 3, sum(recs, "calls", "bolt"))
		require.EqualValues(t, 33, l.Books()[0].Accepted)
	})
}

// resolveUnwritten counts 10, and takes and resolves them where no outcome can be written.
func resolveUnwritten(t *testing.T, dir string, o sink.Outcome, options ...func(*Config)) *Ledger {
	t.Helper()
	var bad atomic.Bool
	l := open(t, "mapped", dir, append(options, failing(&bad))...)
	require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 10))
	rotate(t, l)
	synctest.Wait()
	b, err := l.Take(0, 10, nil)
	require.NoError(t, err)
	bad.Store(true)
	require.Error(t, b.Resolve([]Result{{Outcome: o}}))
	bad.Store(false)
	l.tidy()
	return l
}

// A delivery that could not be written is not forgotten: it is written later, or the
// record stays open.
func TestUnwrittenDelivery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := resolveUnwritten(t, dir, sink.Delivered)
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 10, l.Books()[0].Delivered)
	})
}

// A refusal that could not be written leaves the record to be sent again by the same
// process, not stuck.
func TestUnwrittenRetry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := resolveUnwritten(t, dir, sink.Pending, func(c *Config) { c.Routes[0].DedupeWindow = 0 })
		require.Len(t, deliver(t, l, 0, sink.Delivered), 1, "books: %v health: %v", l.Books(), l.Health())
	})
}

// A decision whose mark can't be written takes effect at the next Open at the latest.
func TestUnwrittenDecision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		l := open(t, "mapped", dir, failing(&bad))
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 10))
		rotate(t, l)
		deliver(t, l, 0, sink.Rejected)
		ids := held(l, "main")
		require.Len(t, ids, 1)
		synctest.Wait()
		bad.Store(true)
		require.Error(t, l.Settle(context.Background(), "main", ids[0], sink.Voided, "x"))
		bad.Store(false)
		l.tidy() // unloads
		l.tidy() // folds what is on disk
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		require.EqualValues(t, 10, l.Books()[0].Voided)
	})
}
