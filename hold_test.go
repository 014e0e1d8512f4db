package meter

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// However a call ends, what it has reserved is free again.
func TestHoldsAreFreed(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", limited(license.Quota{Limit: 10}), Hold(10))
	ends := map[string]func(context.Context){
		"return": func(context.Context) {},
		"panic":  func(context.Context) { panic("a bug") },
		"goexit": func(context.Context) { runtime.Goexit() },
		"abort":  func(context.Context) { panic(http.ErrAbortHandler) },
		"cancel": func(ctx context.Context) { call, _ := CallFrom(ctx); call.Cancel(); call.Cancel() },
		"commit": func(ctx context.Context) { call, _ := CallFrom(ctx); _ = call.Commit(); call.Cancel() },
	}
	for name, end := range ends {
		h := Middleware(f, Identify(bySubject))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			require.EqualValues(t, 10, f.Total("s").Held)
			end(r.Context())
		}))
		sites := map[string]func(){
			"Middleware": func() {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("X-Subject", "s")
				h.ServeHTTP(httptest.NewRecorder(), r)
			},
			"Do": func() { _ = Do(as("s"), f, func(ctx context.Context) error { end(ctx); return nil }) },
			"Wrap": func() {
				_, _ = Wrap(f, func(ctx context.Context, _ int) (int, error) { end(ctx); return 0, nil })(as("s"), 1)
			},
			"Begin": func() {
				ctx, call, err := f.Begin(as("s"))
				defer call.Cancel()
				require.NoError(t, err)
				end(ctx)
			},
		}
		for site, run := range sites {
			var done sync.WaitGroup
			done.Go(func() {
				defer func() { _ = recover() }()
				run()
			})
			done.Wait()
			require.Zero(t, f.Total("s").Held, "%s, %s", site, name)
			require.Zero(t, f.Total("s").Quantity, "%s, %s", site, name)
		}
	}
}

// A call that uses less than it held frees the rest, and one that uses more counts in
// full.
func TestCommitCountsWhatWasUsed(t *testing.T) {
	t.Parallel()
	f := open(t).Feature("tokens", limited(license.Quota{Limit: 100}))
	hold := func(n int64) *Call {
		_, call, err := f.Begin(as("s"), Hold(n))
		require.NoError(t, err)
		return call
	}
	a, b := hold(60), hold(40)
	_, _, err := f.Begin(as("s"), Hold(1))
	refused := asRefused(t, err)
	require.Equal(t, license.OverQuota, refused.Reason)
	require.Equal(t, 402, refused.Status())
	require.EqualValues(t, 100, refused.Total.Held)
	require.Zero(t, refused.RetryAfter, "the end of a call may help")
	require.NoError(t, errors.Join(a.SetQuantity(30), a.Commit()))
	require.Equal(t, []int64{30, 40}, []int64{f.Total("s").Quantity, f.Total("s").Held})
	require.NoError(t, errors.Join(b.SetQuantity(90), b.Commit()))
	require.Equal(t, []int64{120, 0}, []int64{f.Total("s").Quantity, f.Total("s").Held})
	require.Zero(t, f.Total("s").Left())
	_, _, err = f.Begin(as("s"), Hold(0))
	require.Positive(t, asRefused(t, err).RetryAfter)
	_, free, err := f.Begin(as("s"), Quantity(0))
	require.NoError(t, err, "free")
	require.NoError(t, free.Commit())
}

// Elements of a stream use up what was reserved at its start.
func TestSeqBesideAQuota(t *testing.T) {
	t.Parallel()
	f := open(t).Feature("rows", limited(license.Quota{Limit: 10}))
	held := []int64{}
	for v, err := range Seq(as("s"), f, numbers(5), nil, Hold(3)) {
		require.NoError(t, err)
		held = append(held, f.Total("s").Held)
		require.EqualValues(t, v+1, f.Total("s").Quantity)
	}
	require.Equal(t, []int64{2, 1, 0, 0, 0}, held)
	for range Seq(as("s"), f, numbers(5), nil, Hold(3)) {
		break
	}
	require.Equal(t, []int64{6, 0}, []int64{f.Total("s").Quantity, f.Total("s").Held})
}

func numbers(n int) func(yield func(int, error) bool) {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// What reports a decision may fail in any way: nothing stays reserved.
func TestHoldsOfDecisionsThatNobodyHears(t *testing.T) {
	t.Parallel()
	for name, hear := range map[string]func(){
		"goexit": func() { runtime.Goexit() },
		"panic":  func() { panic("a bug") },
		"nil":    func() { panic(nil) },
	} {
		for _, inShadow := range []bool{false, true} {
			m := open(t, func(c *Config) {
				c.Shadow = inShadow
				c.OnDecision = func(context.Context, Decision) { hear() }
			})
			f := m.Feature("f", limited(license.Quota{Limit: 10}), Hold(4))
			for _, run := range []func(){
				func() {
					_, call, err := f.Begin(as("s"))
					require.NoError(t, err)
					call.Cancel()
				},
				func() { _ = Do(as("s"), f, func(context.Context) error { return nil }) },
			} {
				var done sync.WaitGroup
				done.Go(run)
				done.Wait()
				require.Zero(t, f.Total("s").Held, name)
			}
		}
	}
}
