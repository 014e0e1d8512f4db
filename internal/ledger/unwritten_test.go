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

func mergeTrouble(t *testing.T, dir string) (l *Ledger, cfg func(*Config), f *Feature) {
	var phase atomic.Int32 // 1: armed, 2: failing
	cfg = func(c *Config) {
		c.step = func(what string) error {
			switch {
			case phase.Load() == 1 && what == "sync head":
				phase.Store(2) // the merged file is complete; from here on trouble
			case phase.Load() == 2 && (what == "write outcomes" || what == "create .segment"):
				return errors.New("EIO")
			}
			return nil
		}
	}
	l = open(t, "mapped", dir, cfg) // OnFlush: we rotate
	f = feature(t, l, "calls", sink.Sum)
	time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Second)))
	rotate(t, l) // the window begins now
	for i := range 3 {
		require.NoError(t, f.Add("acme", 10))
		require.NoError(t, f.Add("bolt", 1))
		rotate(t, l)
		if i == 0 {
			// the attempt that found out about the outage
			b, err := l.Take(0, 1, nil)
			require.NoError(t, err)
			require.NoError(t, b.Resolve([]Result{{Outcome: sink.Pending}}))
		}
		time.Sleep(time.Minute)
	}
	synctest.Wait()
	time.Sleep(2 * time.Hour)
	phase.Store(1)
	l.tidy()
	t.Log("health after the failed merge:", l.Health())
	phase.Store(0)
	return l, cfg, f
}

func TestMergeWhoseMarksCantBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := mergeTrouble(t, dir)
		t.Log("books after:", l.Books())
		l.tidy()
		t.Log("books after tidy:", l.Books(), "health", l.Health())
		recs := deliver(t, l, 0, sink.Delivered)
		n := sum(recs, "calls", "acme") + sum(recs, "calls", "bolt")
		t.Log("delivered before reopen", n, "books", l.Books())
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		recs = deliver(t, l, 0, sink.Delivered)
		n += sum(recs, "calls", "acme") + sum(recs, "calls", "bolt")
		t.Log("delivered in all", n, "books", l.Books())
		require.EqualValues(t, 33, n)
		require.EqualValues(t, 33, l.Books()[0].Accepted)
	})
}

// B2: an outcome that can't be written is forgotten, and the segment folded.
func TestUnwrittenDelivery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		l := open(t, "mapped", dir, failing(&bad))
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 10))
		rotate(t, l)
		synctest.Wait()
		b, err := l.Take(0, 10, nil)
		require.NoError(t, err)
		bad.Store(true)
		require.Error(t, b.Resolve([]Result{{Outcome: sink.Delivered}}))
		bad.Store(false)
		t.Log("before tidy", l.Books(), len(l.sealedNow()), l.sealedNow()[0].unsettled, l.sealedNow()[0].img != nil)
		sd := l.sealedNow()[0]
		t.Log("state", sd.dirty, sd.flying, sd.pins, sd.paused, sd.path)
		l.tidy()
		t.Log("after tidy", l.Books(), len(l.sealedNow()), l.Health(), sd.unsettled)
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		t.Log("books:", l.Books(), "health:", l.Health(), "sealed:", len(l.sealedNow()))
		// either delivered, or still open so that it can be told apart
		recs := deliver(t, l, 0, sink.Delivered)
		t.Log("resent:", len(recs), l.Books())
		require.EqualValues(t, 10, l.Books()[0].Delivered)
	})
}

// B3: the same for "surely not applied": the record is stuck while the process lives,
// and in doubt afterwards.
func TestUnwrittenRetry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		noDedupe := func(c *Config) { c.Routes[0].DedupeWindow = 0 }
		l := open(t, "mapped", dir, failing(&bad), noDedupe)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 10))
		rotate(t, l)
		synctest.Wait()
		b, err := l.Take(0, 10, nil)
		require.NoError(t, err)
		bad.Store(true)
		require.Error(t, b.Resolve([]Result{{Outcome: sink.Pending}}))
		bad.Store(false)
		l.tidy()
		require.Len(t, deliver(t, l, 0, sink.Delivered), 1, "books: %v health: %v", l.Books(), l.Health())
	})
}

// B4: Settle whose mark fails: "takes effect at the next Open".
func TestUnwrittenDecision(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		l := open(t, "mapped", dir, failing(&bad))
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 10))
		rotate(t, l)
		deliver(t, l, 0, sink.Rejected)
		ids := held(l, "main")
		require.Len(t, ids, 1)
		synctest.Wait()
		bad.Store(true)
		t.Log(l.Settle(context.Background(), "main", ids[0], sink.Voided, "x"))
		bad.Store(false)
		l.tidy() // unloads
		l.tidy() // folds what is on disk
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir)
		t.Log("books:", l.Books(), "held:", held(l, "main"), "sealed", len(l.sealedNow()))
		require.EqualValues(t, 10, l.Books()[0].Voided)
	})
}
