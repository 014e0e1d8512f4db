package meter

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// What a client is told, in headers and in the problem, agrees with Total.
func TestClientsAreToldOfQuotas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := open(t)
		time.Sleep(24 * time.Hour)
		f := m.Feature("report", limited(license.Quota{Limit: 10, Used: 4}), Rate(100, 100))
		serve := func(opts ...Option) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Subject", "s")
			Middleware(f, append(opts, Identify(bySubject))...)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, "ok")
			})).ServeHTTP(w, r)
			return w
		}
		w := serve(Quantity(4))
		require.Equal(t, 200, w.Code)
		require.Equal(t, []string{`"report";q=100;w=1`, `"report-quota";q=10;w=2678400`}, w.Header().Values("RateLimit-Policy"))
		require.Equal(t, []string{`"report";r=99;t=1`, `"report-quota";r=2;t=2592000`}, w.Header().Values("RateLimit"))
		require.EqualValues(t, 2, f.Total("s").Left())

		_, call, err := f.Begin(as("s"))
		require.NoError(t, err)
		w = serve(Quantity(2))
		require.Equal(t, 402, w.Code)
		require.Equal(t, []string{`"report-quota";r=1;t=2592000`}, w.Header().Values("RateLimit"), "a refusal takes nothing of the rate")
		require.JSONEq(t, `{"type":"https://pkg.go.dev/github.com/inprocess/meter/license#OverQuota","title":"Payment Required","status":402,
			"detail":"What is left of the quota of this period is too little for this request.","reason":"over-quota","feature":"report",
			"limit":10,"used":8,"held":1,"reset":"2000-02-01T00:00:00Z"}`, w.Body.String())
		require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
		require.NoError(t, call.Commit())
		require.Equal(t, 200, serve().Code)
		w = serve()
		require.Equal(t, 402, w.Code)
		require.Contains(t, w.Body.String(), `"detail":"The quota of this period is used up."`)
		require.Contains(t, w.Body.String(), `"limit":10,"used":10,"reset":"2000-02-01T00:00:00Z"`)
		require.Equal(t, Total{Quantity: 6, Used: 4, Limit: 10}, bare(f.Total("s")))
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

func TestQuotaFieldsOfManyPeriods(t *testing.T) {
	t.Parallel()
	f := open(t).Feature("f")
	past := time.Now().Add(-2 * time.Minute)
	for want, total := range map[string]Total{
		``:                                     {Limit: -1},
		`"f-quota";q=5 "f-quota";r=2`:          {Limit: 5, Quantity: 3},
		`"f-quota";q=5;w=60 "f-quota";r=0;t=1`: {Limit: 5, Quantity: 9, Start: past, End: past.Add(time.Minute)},
		`"f-quota";q=999999999999999 "f-quota";r=999999999999999`: {Limit: 1<<63 - 1, Start: time.Now()},
	} {
		h := http.Header{}
		f.tellQuota(h, total)
		f.tellQuota(h, total) // the second replaces the first
		got := ""
		if len(h) > 0 {
			require.Len(t, h["Ratelimit"], 1)
			got = h.Get("RateLimit-Policy") + " " + h.Get("RateLimit")
		}
		require.Equal(t, want, got)
	}
}

// Soft quotas and shadow refuse nobody, and say so.
func TestOverageIsReported(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		quota  license.Quota
		shadow bool
	}{
		"soft":   {license.Quota{Limit: 2, Soft: true}, false},
		"shadow": {license.Quota{Limit: 2}, true},
	} {
		var told []string
		m := open(t, func(c *Config) {
			c.Shadow = test.shadow
			c.OnDecision = func(_ context.Context, d Decision) {
				told = append(told, fmt.Sprintf("over=%v refused=%v", d.Over, d.Refusal != nil))
			}
		})
		f := m.Feature("f", limited(test.quota))
		for range 4 {
			_, call, err := f.Begin(as("s"))
			require.NoError(t, err)
			require.NoError(t, call.Commit())
		}
		over := "over=true refused=false"
		if test.shadow {
			over = "over=false refused=true"
		}
		require.Equal(t, []string{"over=false refused=false", "over=false refused=false", over, over}, told, name)
		require.Equal(t, Total{Quantity: 4, Limit: 2}, bare(f.Total("s")), name)
		require.EqualValues(t, 2, f.ledger.Over(), name)
		require.EqualValues(t, 4, m.billed(t, "f", "s"), name)
	}
}

// Each threshold is told once for each subject and period, also of counts by hand, of
// what others used and of limits that come down; a hook that panics harms nobody.
func TestThresholdsAreToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := open(t, slow(t))
		var mu sync.Mutex
		var told []string
		quota := license.Quota{Limit: 10}
		f := m.Feature("f", Limit(func(context.Context, string) (license.Quota, error) { return quota, nil }),
			Thresholds(func(r Threshold) {
				mu.Lock()
				told = append(told, fmt.Sprintf("%s %s %d%% of %d", r.Feature, r.Subject, r.Percent, r.Total.Limit))
				mu.Unlock()
				panic("a bug")
			}, 100, 80, 80, 120))
		is := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(told)
			require.Equal(t, want, told)
			told = nil
		}
		for range 7 {
			require.True(t, try(t, f, "s", 1))
		}
		_, held, err := f.Begin(as("s"), Hold(3))
		require.NoError(t, err)
		is()
		held.Cancel()
		require.True(t, try(t, f, "s", 1))
		is("f s 80% of 10")
		require.True(t, try(t, f, "s", 1))
		require.NoError(t, f.Add(t.Context(), "s", 1))
		is("f s 100% of 10")
		require.False(t, try(t, f, "s", 1))
		require.NoError(t, f.Counter("s").Add(t.Context(), 5))
		is("f s 120% of 10")
		require.True(t, try(t, f, "other", 2, Quantity(1)))
		is()
		quota.Limit = 2
		require.False(t, try(t, f, "other", 1))
		is("f other 100% of 2", "f other 80% of 2")
		quota = license.Quota{Limit: 100, Used: 85}
		require.True(t, try(t, f, "third", 1))
		is("f third 80% of 100")
		quota = license.Quota{Limit: 10}
		time.Sleep(time.Until(f.Total("s").End) + time.Second)
		synctest.Wait()
		require.True(t, try(t, f, "s", 9, Quantity(1)))
		is("f s 80% of 10")
		require.Contains(t, fmt.Sprint(m.logs.all()), "the hook of Thresholds panicked")
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

// What is told of a threshold has the call that reaches it once, as used.
func TestThresholdsDoNotCountTheCallTwice(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{
		"plain": {Quantity(8)}, "held": {Hold(9)}, "keyed": {Hold(9), IdempotencyKey()},
	} {
		for _, sync := range []time.Duration{time.Hour, SyncAlways} {
			t.Run(fmt.Sprint(name, sync == SyncAlways), func(t *testing.T) {
				t.Parallel()
				m := open(t, slow(t), func(c *Config) { c.Sync = sync })
				told := make(chan Total, 1)
				f := m.Feature("f", limited(license.Quota{Limit: 10}), Thresholds(func(r Threshold) { told <- bare(r.Total) }, 80))
				h := Middleware(f, append(opts, Identify(bySubject))...)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					require.NoError(t, SetQuantity(r.Context(), 8))
				}))
				r := httptest.NewRequest("POST", "/", nil)
				r.Header.Set("X-Subject", "s")
				r.Header.Set("Idempotency-Key", "k")
				h.ServeHTTP(httptest.NewRecorder(), r)
				require.Equal(t, Total{Quantity: 8, Limit: 10}, <-told)
			})
		}
	}
}

// Thresholds of a subject that is held to a month and to a period of its own in turn are
// told once for each.
func TestThresholdsOfTwoPeriods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := open(t, slow(t))
		var told atomic.Int64
		month := m.Feature("f", limited(license.Quota{Limit: 10}), Thresholds(func(Threshold) { told.Add(1) }, 50))
		own := m.Feature("f", limited(license.Quota{Limit: 10, Start: time.Now().AddDate(0, -3, 0), End: time.Now().Add(time.Hour)}))
		for range 4 {
			require.True(t, try(t, month, "s", 1))
			require.True(t, try(t, own, "s", 1))
		}
		synctest.Wait()
		require.EqualValues(t, 2, told.Load())
		require.NoError(t, m.Shutdown(t.Context()))
	})
}

func TestBadThresholdsPanic(t *testing.T) {
	t.Parallel()
	m := open(t)
	for name, option := range map[string]FeatureOption{
		"no hook": Thresholds(nil, 80), "no percents": Thresholds(func(Threshold) {}), "zero": Thresholds(func(Threshold) {}, 0, 80),
	} {
		require.Panics(t, func() { m.Feature("f "+name, option) }, name)
	}
}

// Totals are those of a model, for subjects with quotas and without, whatever they did.
func TestTotals(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", Limit(func(_ context.Context, subject string) (license.Quota, error) {
		if subject < "s5" {
			return license.Quota{Limit: 100_000}, nil
		}
		return license.Quota{Limit: -1}, nil
	}))
	want := map[string]Total{}
	for i := range 200 {
		subject := fmt.Sprint("s", i%10)
		total := want[subject]
		if total.Limit = -1; subject < "s5" {
			total.Limit = 100_000
		}
		if i%3 == 0 {
			require.NoError(t, f.Add(WithDimension(t.Context(), "d", fmt.Sprint(i%7)), subject, int64(i)))
		} else {
			require.True(t, try(t, f, subject, int64(i)))
		}
		total.Quantity += int64(i)
		want[subject] = total
	}
	_, call, err := f.Begin(as("s0"), Hold(7))
	require.NoError(t, err)
	defer call.Cancel()
	held := want["s0"]
	held.Held = 7
	want["s0"] = held
	_ = f.Counter("idle")
	got := map[string]Total{}
	for subject, total := range f.Totals() {
		require.Equal(t, f.Total(subject), total)
		got[subject] = bare(total)
	}
	require.Equal(t, want, got)
	for range f.Totals() {
		break
	}
}
