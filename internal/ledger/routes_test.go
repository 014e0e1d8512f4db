package ledger

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// withRoutes replaces the routes.
func withRoutes(routes ...Route) func(*Config) {
	return func(c *Config) { c.Routes = routes }
}

func toMain() Route { return Route{Name: "main", DedupeWindow: sink.Forever, Timeout: time.Second} }

func shut(t *testing.T, l *Ledger) {
	t.Helper()
	require.NoError(t, l.Close(context.Background()))
}

func eachDiskMode(t *testing.T, test func(t *testing.T, mode, dir string)) {
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { test(t, mode, dir) })
		})
	}
}

func TestMatchIsAskedOnce(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		asked := 0
		only := func(prefix string) Route {
			r := toMain()
			r.Name = prefix
			r.Match = func(r sink.Record) bool {
				asked++
				return strings.HasPrefix(r.Subject, prefix)
			}
			return r
		}
		l := open(t, mode, dir, withRoutes(only("a"), only("b")))
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("ann", 1))
		require.NoError(t, f.Add("bob", 2))
		require.NoError(t, f.Add("cy", 4))
		rotate(t, l)
		require.Equal(t, 6, asked)
		shut(t, l)

		// Whatever Match says now, the records are where they were put.
		all, none := only("a"), only("b")
		all.Match, none.Match = nil, func(sink.Record) bool { return false }
		l = open(t, mode, dir, withRoutes(all, none))
		require.EqualValues(t, 1, sum(deliver(t, l, 0, sink.Delivered), "calls", "ann"))
		require.EqualValues(t, 2, sum(deliver(t, l, 1, sink.Delivered), "calls", "bob"))
		require.Equal(t, []Line{
			{Feature: "calls", Route: "", Accepted: 4, Pending: 4}, // nobody wanted it, and nobody hides it
			{Feature: "calls", Route: "a", Accepted: 1, Delivered: 1},
			{Feature: "calls", Route: "b", Accepted: 2, Delivered: 2},
		}, l.Books())
		require.Equal(t, 6, asked)
		books := l.Books()
		require.NoError(t, l.foldSettled())
		require.Equal(t, books, l.Books())
	})
}

func TestMatchThatPanicsLosesNothing(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		r := toMain()
		r.Match = func(sink.Record) bool { panic("boom") }
		l := open(t, mode, dir, withRoutes(r))
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 1))
		rotate(t, l)
		require.ErrorContains(t, l.Health(), `Match of route "main" panicked`)
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 1, Pending: 1}}, l.Books())
		shut(t, l)
		l = open(t, mode, dir)
		require.EqualValues(t, 1, sum(deliver(t, l, 0, sink.Delivered), "calls", "ann"))
	})
}

func TestRoutesComeAndGo(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		other := toMain()
		other.Name = "other"
		l := open(t, mode, dir)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 1))
		shut(t, l)

		// A new route is owed nothing of before; what the old one is owed stays.
		l = open(t, mode, dir, withRoutes(other))
		require.Empty(t, deliver(t, l, 0, sink.Delivered))
		require.ErrorContains(t, l.Health(), `route "main" is not configured`)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 2))
		rotate(t, l)
		require.EqualValues(t, 2, sum(deliver(t, l, 0, sink.Delivered), "calls", "ann"))
		require.Equal(t, []Line{
			{Feature: "calls", Route: "main", Accepted: 1, Pending: 1},
			{Feature: "calls", Route: "other", Accepted: 2, Delivered: 2},
		}, l.Books())
		shut(t, l)

		// Their order means nothing.
		l = open(t, mode, dir, withRoutes(other, toMain()))
		require.NoError(t, l.Health())
		require.Empty(t, deliver(t, l, 0, sink.Delivered))
		require.EqualValues(t, 1, sum(deliver(t, l, 1, sink.Delivered), "calls", "ann"))
	})
}

func TestNameThatLeadsElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		test, live := toMain(), toMain()
		test.Address, live.Address = "stripe:test", "stripe:live"
		l := open(t, mode, dir, withRoutes(test))
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 1))
		shut(t, l)

		_, err := openMode(testConfig(dir, withRoutes(live)), mode)
		require.ErrorContains(t, err, `route "main" delivers to "stripe:live" now`)

		l = open(t, mode, dir, withRoutes(test))
		require.Len(t, deliver(t, l, 0, sink.Delivered), 1)
		shut(t, l)
		l = open(t, mode, dir, withRoutes(live)) // nothing is owed to the old one
		shut(t, l)
	})
}

func TestRecordsStayWithinTheSinksQuantity(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), func(c *Config) { c.Routes[0].MaxQuantity = 10 })
		f := feature(t, l, "calls", sink.Sum)
		require.ErrorIs(t, f.Add("ann", 11), ErrQuantity)
		for range 7 {
			require.NoError(t, f.Add("ann", 4))
		}
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 28, sum(records, "calls", "ann"))
		for _, r := range records {
			require.LessOrEqual(t, r.Quantity, int64(10))
		}
	})
}

func TestNoRoutes(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, withRoutes())
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("ann", 3))
		rotate(t, l)
		synctest.Wait() // housekeeping may be looking at it
		require.NoError(t, l.foldSettled())
		require.Empty(t, l.sealedNow(), "nobody waits for it")
		require.NoError(t, f.Add("ann", 4))
		want := []Line{{Feature: "calls", Accepted: 7, Pending: 7}}
		require.Equal(t, want, l.Books())
		shut(t, l)
		l = open(t, mode, dir, withRoutes())
		require.Equal(t, want, l.Books())
		total, _, _ := feature(t, l, "calls", sink.Sum).Total("ann")
		require.EqualValues(t, 7, total)
	})
}

func TestRetain(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, func(c *Config) { c.Retain = time.Hour })
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 3))
		rotate(t, l)
		deliver(t, l, 0, sink.Delivered)
		synctest.Wait()
		l.tidy()
		require.Empty(t, l.sealedNow())
		require.Len(t, glob(t, dir, retainedDir+"/*"+segmentSuffix), 1)
		shut(t, l)
		l = open(t, mode, dir) // retained no longer
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 3, Delivered: 3}}, l.Books())
		time.Sleep(time.Minute)
		l.tidy()
		require.Empty(t, glob(t, dir, retainedDir+"/*"))
	})
}

// A level whose Match panicked is decided at the next Open, when a newer one may have
// been sent: it must not be sent then.
func TestUndecidedLastIsSuperseded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		panics := true
		routes := func(c *Config) {
			c.Routes[0].Match = func(sink.Record) bool {
				if panics {
					panic("match")
				}
				return true
			}
		}
		l := open(t, "mapped", dir, routes)
		f := feature(t, l, "seats", sink.Last)
		require.NoError(t, f.Set("acme", 5))
		rotate(t, l)
		panics = false
		time.Sleep(time.Minute)
		require.NoError(t, f.Set("acme", 0)) // the customer left
		rotate(t, l)
		recs := deliver(t, l, 0, sink.Delivered)
		require.Len(t, recs, 1)
		require.EqualValues(t, 0, recs[0].Quantity)
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir, routes)
		require.Empty(t, deliver(t, l, 0, sink.Delivered))
	})
}
