package meter

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
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

func TestRefusals(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	checker := static(map[string]license.Verdict{
		"ended":     {Status: license.Allowed, Subject: "cus_1", Until: past},
		"was out":   {Status: license.Denied, Reason: license.Expired, Subject: "cus_1", Until: past},
		"running":   {Status: license.Allowed, Subject: "cus_1", Until: future},
		"is out":    {Status: license.Denied, Reason: license.Expired, Subject: "cus_1", Until: future},
		"good":      allowed("cus_1"),
		"nameless":  {Status: license.Allowed},
		"expired":   {Status: license.Denied, Reason: license.Expired, Subject: "cus_1"},
		"blocked":   {Status: license.Denied, Reason: license.Blocked},
		"entitled":  {Status: license.Denied, Reason: license.NotEntitled},
		"silent":    {Status: license.Denied},
		"unpaid":    {Status: license.Denied, Reason: license.Unpaid},
		"used up":   {Status: license.Denied, Reason: license.OverQuota},
		"keyless":   {Status: license.Denied, Reason: license.NoKey},
		"unknown":   {},
		"malformed": {Status: license.Allowed, Subject: "a\nb"},
	})
	key := func(s string) Caller { return Caller{Key: license.NewKey(s)} }
	for name, test := range map[string]struct {
		change func(*Config)
		who    Caller
		status int // 0: let through
		reason license.Reason
		cause  error
		billed string
	}{
		"good":                         {who: key("good"), billed: "cus_1"},
		"subject of the host":          {who: Caller{Subject: "good"}, billed: "cus_1"},
		"verdict without a subject":    {who: key("nameless"), status: 503, reason: license.Unavailable, cause: ErrNoCaller},
		"nobody":                       {who: Caller{}, status: 401, reason: license.NoKey, cause: ErrNoCaller},
		"machine only":                 {who: Caller{Machine: "m"}, status: 401, reason: license.NoKey, cause: ErrNoCaller},
		"key of 10 MB":                 {who: key(strings.Repeat("k", 10<<20)), status: 401, reason: license.NoKey, cause: errLongKey},
		"key with a control character": {who: key("go\nod"), status: 401, reason: license.NoKey, cause: errBadKey},
		"machine of 1 MB":              {who: Caller{Key: license.NewKey("good"), Machine: strings.Repeat("m", 1<<20)}, status: 401, reason: license.NoKey, cause: ErrName},
		"not found":                    {who: key("?"), status: 403, reason: license.NotFound},
		"expired":                      {who: key("expired"), status: 403, reason: license.Expired},
		"blocked":                      {who: key("blocked"), status: 403, reason: license.Blocked},
		"not entitled":                 {who: key("entitled"), status: 403, reason: license.NotEntitled},
		"denied without a reason":      {who: key("silent"), status: 403, reason: license.NotEntitled},
		"unpaid":                       {who: key("unpaid"), status: 402, reason: license.Unpaid},
		"used up":                      {who: key("used up"), status: 402, reason: license.OverQuota},
		"denied as no key":             {who: key("keyless"), status: 401, reason: license.NoKey},
		"server down":                  {who: key("down"), status: 503, reason: license.Unavailable},
		"zero verdict":                 {who: key("unknown"), status: 503, reason: license.Unavailable},
		"zero verdict, host subject":   {who: Caller{Key: license.NewKey("unknown"), Subject: "cus_9"}, status: 503, reason: license.Unavailable},
		"malformed verdict":            {who: key("malformed"), status: 503, reason: license.Unavailable, cause: ErrName},
		"panic":                        {who: key("panic"), status: 503, reason: license.Unavailable},
		"verdict until now":            {who: key("ended"), status: 503, reason: license.Unavailable, cause: errUntil},
		"denial until now":             {who: key("was out"), status: 503, reason: license.Unavailable, cause: errUntil},
		"verdict until later":          {who: key("running"), billed: "cus_1"},
		"denial until later":           {who: key("is out"), status: 403, reason: license.Expired},
		"panic, unknown allowed":       {change: allowUnknown, who: Caller{Key: license.NewKey("panic"), Subject: "cus_9"}, billed: "cus_9"},
		"until now, unknown allowed":   {change: allowUnknown, who: key("ended"), billed: "cus_1"},
		"down, unknown allowed":        {change: allowUnknown, who: Caller{Key: license.NewKey("down"), Subject: "cus_9"}, billed: "cus_9"},
		"down, unknown, no subject":    {change: allowUnknown, who: key("down"), status: 503, reason: license.Unavailable, cause: ErrNoCaller},
		"denied, unknown allowed":      {change: allowUnknown, who: key("expired"), status: 403, reason: license.Expired},
		"no checker, subject":          {change: noChecker, who: Caller{Subject: "cus_2"}, billed: "cus_2"},
		"no checker, key and subject":  {change: noChecker, who: Caller{Key: license.NewKey("k"), Subject: "cus_2"}, billed: "cus_2"},
		"no checker, key":              {change: noChecker, who: key("good"), status: 401, reason: license.NoKey, cause: ErrNoCaller},
		"no checker, nobody":           {change: noChecker, who: Caller{}, status: 401, reason: license.NoKey, cause: ErrNoCaller},
		"shadow, good":                 {change: shadow, who: key("good"), billed: "cus_1"},
		"shadow, expired":              {change: shadow, who: key("expired"), billed: "cus_1"},
		"shadow, nobody":               {change: shadow, who: Caller{}},
		"shadow, denied, host subject": {change: shadow, who: Caller{Subject: "cus_3"}, billed: "cus_3"},
		"shadow, down":                 {change: shadow, who: Caller{Key: license.NewKey("down"), Subject: "cus_9"}, billed: "cus_9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var told []Decision
			m := open(t, func(c *Config) {
				c.Checker = checker
				c.OnDecision = func(_ context.Context, d Decision) { told = append(told, d) }
				if test.change != nil {
					test.change(c)
				}
			})
			f := m.Feature("f")
			ran := false
			err := Do(WithCaller(t.Context(), test.who), f, func(context.Context) error { ran = true; return nil })
			require.Len(t, told, 1)
			d := told[0]
			require.Equal(t, "f", d.Feature)
			require.Equal(t, m.cfg.Shadow, d.Shadow)
			require.NoError(t, m.Flush(t.Context()))
			if test.status == 0 {
				require.NoError(t, err)
				require.True(t, ran)
				require.Equal(t, test.billed, d.Caller.Subject)
				if test.billed == "" {
					require.Empty(t, m.sink.Records())
				} else {
					require.Len(t, m.sink.Records(), 1)
					require.EqualValues(t, 1, m.sink.Total("f", test.billed))
				}
				return
			}
			require.False(t, ran)
			require.Empty(t, m.sink.Records())
			refused := asRefused(t, err)
			require.Same(t, refused, d.Refusal)
			require.Equal(t, test.reason, refused.Reason)
			require.Equal(t, test.status, refused.Status())
			require.Equal(t, "f", refused.Feature)
			if test.cause != nil {
				require.ErrorIs(t, err, test.cause)
			}
		})
	}
}

func allowUnknown(c *Config) { c.AllowUnknown = true }
func noChecker(c *Config)    { c.Checker = nil }
func shadow(c *Config)       { c.Shadow = true }

func TestKeyWithoutCheckerIsToldOnce(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	for range 3 {
		_, _, err := f.Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("canary-key")}))
		require.ErrorIs(t, err, ErrNoCaller)
		require.NotContains(t, err.Error(), "canary")
	}
	require.Len(t, m.logs.all(), 1)
	require.Contains(t, m.logs.all()[0], "Config.Checker")
	require.NotContains(t, m.logs.all()[0], "canary")
}

// pathError panics when a nil one is looked at.
type pathError struct{ cause error }

func (e *pathError) Error() string { return e.cause.Error() }
func (e *pathError) Unwrap() error { return e.cause }

// What a Checker's bug says may hold the key; where it is, doesn't.
func TestCheckerPanicsIsLogged(t *testing.T) {
	t.Parallel()
	for text, v := range map[string]any{
		"panicked with a string":           "no row for canary-key",
		"panicked with a *errors.errorStr": errors.New("no row for canary-key"),
		"panicked: runtime error: index":   nil,
		"panicked: runtime error: invalid": (*pathError)(nil), // returned, a common slip
	} {
		m := open(t, func(c *Config) {
			c.Checker = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
				if slip, ok := v.(*pathError); ok {
					return license.Verdict{}, slip
				}
				if v == nil {
					_ = []int{}[len(q.Feature)]
				}
				panic(v)
			})
		})
		f := m.Feature("f", KeyHeader("X-Key"))
		for range 2 {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Key", "canary-key")
			Middleware(f)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("ran") })).ServeHTTP(w, r)
			require.Equal(t, 503, w.Code)
			require.NotContains(t, w.Body.String(), "canary")
		}
		logs := m.logs.all()
		require.Len(t, logs, 1)
		require.Contains(t, logs[0], "WARN")
		require.Contains(t, logs[0], text)
		require.Contains(t, logs[0], "goroutine ", "the stack")
		require.NotContains(t, logs[0], "canary")
	}
}

func TestOutageIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Checker = static(nil) })
	f := m.Feature("f")
	for range 3 {
		_, _, err := f.Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("down")}))
		require.Equal(t, 503, asRefused(t, err).Status())
	}
	require.Len(t, m.logs.all(), 1)
	require.Contains(t, m.logs.all()[0], "connection refused")
	m.warned.Range(func(_, last any) bool { last.(*atomic.Int64).Add(-60); return true })
	_, _, err := f.Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("down")}))
	require.Error(t, err)
	require.Len(t, m.logs.all(), 2)
}

func TestRefusedErrorHidesItsCause(t *testing.T) {
	t.Parallel()
	e := &RefusedError{Feature: "f", Reason: license.Unavailable, Cause: errors.New("dial tcp 10.0.0.7")}
	require.Equal(t, `meter: refused: unavailable: feature "f"`, e.Error())
	require.Equal(t, "meter: refused: no-key", (&RefusedError{Reason: license.NoKey}).Error())
	require.Equal(t, 403, (&RefusedError{Reason: "made-up"}).Status())
}

func TestRate(t *testing.T) {
	t.Parallel()
	m := open(t) // outside of the bubble: it has goroutines
	f := m.Feature("f", Rate(2, 3))
	synctest.Test(t, func(t *testing.T) {
		begin := func(subject string, opts ...Option) error {
			_, call, err := f.Begin(as(subject), opts...)
			call.Cancel()
			return err
		}
		for range 3 {
			require.NoError(t, begin("a"))
		}
		refused := asRefused(t, begin("a"))
		require.Equal(t, license.TooFast, refused.Reason)
		require.Equal(t, 429, refused.Status())
		require.Equal(t, "a", refused.Subject)
		require.Equal(t, 500*time.Millisecond, refused.RetryAfter)
		require.NoError(t, begin("b"), "each subject has its own")
		time.Sleep(499 * time.Millisecond)
		require.Error(t, begin("a"))
		time.Sleep(time.Millisecond)
		require.NoError(t, begin("a"))
		require.NoError(t, begin("a", Rate(rate.Inf, 0)), "a call site's own")
		require.Error(t, begin("a", Rate(2, 3)), "the same allowance wherever it stands")
		require.NoError(t, begin("c", Rate(0, 1)))
		require.Zero(t, asRefused(t, begin("c", Rate(0, 1))).RetryAfter, "never")
		slow := Rate(rate.Limit(1e-300), 1)
		require.NoError(t, begin("d", slow))
		require.Equal(t, maxRetryAfter, asRefused(t, begin("d", slow)).RetryAfter)
	})
}

// Strangers may come in any number: who calls now and then keeps what was taken.
func TestRateIsBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter("f", allowance{1, 1})
	busy := l.account("busy")
	for i := range 3 * limiterSubjects {
		l.account(string(binary(i)))
		if i%(limiterSubjects/2) == 0 {
			require.Same(t, busy, l.account("busy"), "after %d strangers", i)
		}
	}
	held := 0
	l.hits.Range(func(any, any) bool { held++; return true })
	require.Equal(t, limiterSubjects, held)
	require.Equal(t, limiterSubjects, l.all.Len())
}

// A subject is often a part of a request, which must not be kept for it.
func TestRateKeepsNoRequest(t *testing.T) {
	t.Parallel()
	request := strings.Repeat("request ", 1000)
	l := newLimiter("f", allowance{1, 1})
	l.account(request[:7])
	kept, _, _ := l.all.GetOldest()
	require.Equal(t, "request", kept)
	require.NotSame(t, unsafe.StringData(request), unsafe.StringData(kept))
	l.hits.Range(func(subject, _ any) bool {
		require.NotSame(t, unsafe.StringData(request), unsafe.StringData(subject.(string)))
		return true
	})
}

func binary(i int) []byte { return []byte{byte(i), byte(i >> 8), byte(i >> 16)} }

func TestRateUnderContention(t *testing.T) {
	t.Parallel()
	l := newLimiter("f", allowance{0.001, 100})
	now := time.Now()
	var let atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if l.account("s").tokens.AllowN(now, 1) {
					let.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 100, let.Load())
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
