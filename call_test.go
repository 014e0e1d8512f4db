package meter

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

func TestCallQuantity(t *testing.T) {
	t.Parallel()
	set := func(n int64) func(*Call) error { return func(c *Call) error { return c.SetQuantity(n) } }
	add := func(n int64) func(*Call) error { return func(c *Call) error { return c.AddQuantity(n) } }
	for name, test := range map[string]struct {
		opts  []Option
		steps []func(*Call) error
		want  int64
		fails error
	}{
		"default":                  {nil, nil, 1, nil},
		"preset":                   {[]Option{Quantity(7)}, nil, 7, nil},
		"free":                     {[]Option{Quantity(0)}, nil, 0, nil},
		"set":                      {nil, []func(*Call) error{set(3), set(5)}, 5, nil},
		"add replaces the preset":  {[]Option{Quantity(7)}, []func(*Call) error{add(2), add(3)}, 5, nil},
		"set then add":             {nil, []func(*Call) error{set(3), add(2)}, 5, nil},
		"add nothing":              {nil, []func(*Call) error{add(0)}, 0, nil},
		"hold, nothing set":        {[]Option{Hold(5000)}, nil, 0, nil},
		"hold, set":                {[]Option{Hold(5000)}, []func(*Call) error{set(3100)}, 3100, nil},
		"hold, more than held":     {[]Option{Hold(5)}, []func(*Call) error{set(31)}, 31, nil},
		"hold after quantity":      {[]Option{Quantity(7), Hold(1)}, nil, 0, nil},
		"quantity after hold":      {[]Option{Hold(1), Quantity(7)}, nil, 7, nil},
		"negative set":             {nil, []func(*Call) error{set(-1)}, 1, ErrQuantity},
		"negative add":             {nil, []func(*Call) error{set(4), add(-1)}, 4, ErrQuantity},
		"set too much":             {nil, []func(*Call) error{set(1 << 53)}, 1, ErrQuantity},
		"add too much":             {nil, []func(*Call) error{set(4), add(1<<53 - 1)}, 4, ErrQuantity},
		"add overflowing an int64": {nil, []func(*Call) error{set(4), add(1<<63 - 1)}, 4, ErrQuantity},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			_, call, err := f.Begin(as("s"), test.opts...)
			require.NoError(t, err)
			for _, step := range test.steps {
				err = step(call)
			}
			require.ErrorIs(t, err, test.fails)
			require.Equal(t, test.want, call.Quantity())
			require.NoError(t, call.Commit())
			require.Equal(t, test.want, call.Quantity())
			require.Equal(t, test.want, f.Total("s").Quantity, "in the ledger before Commit returns")
			require.Equal(t, test.want, m.billed(t, "f", "s"))
		})
	}
}

func TestCallEndsOnce(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")

	_, call, err := f.Begin(as("s"))
	require.NoError(t, err)
	require.NoError(t, call.Commit())
	require.NoError(t, call.Commit())
	call.Cancel()
	require.EqualValues(t, 1, call.Quantity())
	require.ErrorIs(t, call.AddQuantity(1), ErrNotMetered, "nothing is dropped silently")
	require.ErrorIs(t, call.SetQuantity(1), ErrNotMetered)
	require.EqualValues(t, 1, f.Total("s").Quantity)

	_, call, err = f.Begin(as("s"))
	require.NoError(t, err)
	call.Cancel()
	require.EqualValues(t, 0, call.Quantity())
	require.ErrorIs(t, call.Commit(), ErrNotMetered)
	require.EqualValues(t, 1, f.Total("s").Quantity)

	var none *Call
	require.NotPanics(t, none.Cancel)
}

func TestCommitRemembersItsFailure(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	_, call, err := f.Begin(as("s"))
	require.NoError(t, err)
	require.NoError(t, m.Shutdown(t.Context()))
	require.ErrorIs(t, call.Commit(), ErrClosed)
	require.ErrorIs(t, call.Commit(), ErrClosed)
}

func TestCommitOutlivesItsContext(t *testing.T) {
	t.Parallel()
	m := open(t)
	ctx, cancel := context.WithCancel(as("s"))
	ctx, call, err := m.Feature("f").Begin(ctx)
	require.NoError(t, err)
	cancel()
	require.Error(t, ctx.Err(), "the call's context is its parent's")
	require.NoError(t, call.Commit())
	require.EqualValues(t, 1, m.billed(t, "f", "s"))
}

// No quantity is ever dropped silently: what AddQuantity took is counted.
func TestAddQuantityRacesCommit(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	var taken int64
	for range 3000 {
		_, call, err := f.Begin(as("s"), Hold(0))
		require.NoError(t, err)
		var running sync.WaitGroup
		var started atomic.Bool
		running.Go(func() {
			for started.Store(true); call.AddQuantity(1) == nil; {
				taken++
			}
		})
		for !started.Load() {
			runtime.Gosched()
		}
		require.NoError(t, call.Commit())
		running.Wait()
	}
	require.Equal(t, taken, m.billed(t, "f", "s"))
}

func TestConcurrentQuantities(t *testing.T) {
	t.Parallel()
	m := open(t)
	_, call, err := m.Feature("f").Begin(as("s"))
	require.NoError(t, err)
	require.NoError(t, call.change(func(old int64) int64 {
		if old == 0 {
			require.NoError(t, call.AddQuantity(5)) // another goroutine is faster
		}
		return old + 1
	}))
	require.EqualValues(t, 6, call.Quantity())
	require.ErrorIs(t, call.change(func(old int64) int64 {
		call.Cancel()
		return old + 1
	}), ErrNotMetered)
	require.EqualValues(t, 0, call.Quantity())
}

func TestNestedCalls(t *testing.T) {
	t.Parallel()
	var asked []license.Query
	m := open(t, func(c *Config) {
		c.Checker = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			asked = append(asked, q)
			if q.Feature == "forbidden" {
				return license.Verdict{Status: license.Denied, Reason: license.NotEntitled}, nil
			}
			return allowed("cus_1"), nil
		})
	})
	outer, inner, forbidden := m.Feature("outer"), m.Feature("inner"), m.Feature("forbidden")
	key := license.NewKey("K-1")
	ctx, outerCall, err := outer.Begin(WithCaller(t.Context(), Caller{Key: key, Machine: "m1"}))
	require.NoError(t, err)
	require.Equal(t, Caller{Key: key, Machine: "m1", Subject: "cus_1"}, outerCall.Caller())

	innerCtx, innerCall, err := inner.Begin(ctx)
	require.NoError(t, err)
	require.NoError(t, SetQuantity(innerCtx, 10))
	require.NoError(t, SetQuantity(ctx, 20))
	require.NoError(t, innerCall.Commit())
	require.NoError(t, outerCall.Commit())

	_, call, err := forbidden.Begin(ctx)
	require.Equal(t, license.NotEntitled, asRefused(t, err).Reason)
	require.Nil(t, call)
	for _, q := range asked {
		require.Equal(t, key, q.Key, "inherited")
		require.Equal(t, "m1", q.Machine)
	}
	other, ok := CallFrom(context.WithValue(innerCtx, struct{ int }{}, 1))
	require.True(t, ok)
	require.Same(t, innerCall, other, "the innermost")
	require.EqualValues(t, 10, m.billed(t, "inner", "cus_1"))
	require.EqualValues(t, 20, m.billed(t, "outer", "cus_1"))
}

func TestOutsideOfCalls(t *testing.T) {
	t.Parallel()
	_, ok := CallFrom(t.Context())
	require.False(t, ok)
	require.ErrorIs(t, SetQuantity(t.Context(), 1), ErrNotMetered)
}

func TestBadCallOptions(t *testing.T) {
	t.Parallel()
	m := open(t)
	f, peak := m.Feature("f"), m.Feature("peak", Kind(sink.Max))
	nothing := func(context.Context) error { return nil }
	for name, opt := range map[string]Option{
		"quantity": Quantity(-1), "hold": Hold(-1), "too much": Quantity(1 << 53),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := f.Begin(as("s"), opt)
			require.ErrorIs(t, err, ErrQuantity)
			require.ErrorIs(t, Do(as("s"), f, nothing, opt), ErrQuantity)
			require.Contains(t, panicOf(func() { Middleware(f, KeyBearer(), opt) }), `"f"`)
			require.Contains(t, panicOf(func() { Wrap(f, func(context.Context, int) (int, error) { return 0, nil }, opt) }), `"f"`)
		})
	}
	_, _, err := f.Begin(as("s"), Rate(-1, 1))
	require.ErrorContains(t, err, "limit")
	_, _, err = f.Begin(as("s"), Rate(0, 0))
	require.ErrorContains(t, err, "burst")
	_, _, err = f.Begin(as("s"), Quantity(1), nil)
	require.ErrorContains(t, err, "nil option")
	_, _, err = peak.Begin(as("s"))
	require.ErrorIs(t, err, ErrKind)
	require.ErrorIs(t, Do(as("s"), peak, nothing), ErrKind)
	require.Contains(t, panicOf(func() { Middleware(peak, KeyBearer()) }), "use Set")
}

func TestBeginAllocates(t *testing.T) {
	m := open(t)
	f := m.Feature("f")
	ctx := as("s")
	require.NoError(t, f.Add(ctx, "s", 1))
	counter := f.Counter("s")
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = f.Add(ctx, "s", 1) }), "Feature.Add")
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = counter.Add(ctx, 1) }), "Counter.Add")
	got := testing.AllocsPerRun(100, func() {
		_, call, _ := f.Begin(ctx)
		_ = call.AddQuantity(1)
		_ = call.Commit()
	})
	require.LessOrEqual(t, got, 1.0, "Begin")
}

func TestContextPrints(t *testing.T) {
	t.Parallel()
	m := open(t)
	ctx, call, err := m.Feature("f").Begin(as("s"))
	require.NoError(t, err)
	defer call.Cancel()
	require.Contains(t, ctx.(interface{ String() string }).String(), "WithCall(f)")
}
