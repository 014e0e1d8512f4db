package meter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// sites run work once, as a call of f by who.
var sites = map[string]func(f *Feature, who Caller, work func()) error{
	"Begin": func(f *Feature, who Caller, work func()) error {
		_, call, err := f.Begin(WithCaller(context.Background(), who))
		defer call.Cancel()
		if err != nil {
			return err
		}
		work()
		return call.Commit()
	},
	"Wrap": func(f *Feature, who Caller, work func()) error {
		_, err := Wrap(f, func(context.Context, int) (int, error) { work(); return 0, nil })(WithCaller(context.Background(), who), 1)
		return err
	},
	"Do": func(f *Feature, who Caller, work func()) error {
		return Do(WithCaller(context.Background(), who), f, func(context.Context) error { work(); return nil })
	},
	"Seq": func(f *Feature, who Caller, work func()) error {
		one := iter.Seq2[int, error](func(yield func(int, error) bool) { work(); yield(1, nil) })
		for _, err := range Seq(WithCaller(context.Background(), who), f, one, nil) {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Middleware": func(f *Feature, who Caller, work func()) (err error) {
		h := Middleware(f, Identify(func(*http.Request) (Caller, error) { return who, nil }),
			Refuse(func(w http.ResponseWriter, r *http.Request, why error) { err = why; WriteProblem(w, r, why) }))
		h(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { work() })).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		return err
	},
}

// Every reason, at every place where a call can begin: refused, the work has not
// run and nothing is counted; under Shadow, it has, and is billed to whom the
// verdict names.
func TestEveryReasonAtEverySite(t *testing.T) {
	t.Parallel()
	for reason, status := range map[license.Reason]int{
		"":            0, // allowed
		license.NoKey: 401, license.NotFound: 403, license.Expired: 403, license.Blocked: 403, license.NotEntitled: 403,
		license.Unpaid: 402, license.OverQuota: 402, license.TooFast: 429, license.Unavailable: 503, "of-our-own": 403,
	} {
		checker := license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
			switch reason {
			case "":
				return allowed("cus_1"), nil
			case license.Unavailable:
				return license.Verdict{}, errors.New("connection refused")
			}
			return license.Verdict{Status: license.Denied, Reason: reason, Subject: "cus_1"}, nil
		})
		for name, site := range sites {
			for _, shadow := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,%s,shadow=%v", name, reason, shadow), func(t *testing.T) {
					t.Parallel()
					var told []Decision
					m := open(t, func(c *Config) {
						c.Checker, c.Shadow = checker, shadow
						c.OnDecision = func(_ context.Context, d Decision) { told = append(told, d) }
					})
					f, runs := m.Feature("f"), 0
					who := Caller{Key: license.NewKey("k"), Subject: "said by the host"}
					err := site(f, who, func() { runs++ })

					require.Len(t, told, 1)
					require.Equal(t, shadow, told[0].Shadow)
					require.Equal(t, who.Key, told[0].Caller.Key)
					billed := "cus_1"
					if reason == license.Unavailable {
						billed = who.Subject // nobody knows better
					}
					require.Equal(t, billed, told[0].Caller.Subject)
					if reason == "" || shadow {
						require.NoError(t, err)
						require.Equal(t, reason == "", told[0].Refusal == nil)
						require.Equal(t, 1, runs)
						require.EqualValues(t, 1, m.billed(t, "f", billed))
						require.Len(t, m.sink.Records(), 1, "to nobody else")
						return
					}
					refused := asRefused(t, err)
					require.Same(t, refused, told[0].Refusal)
					require.Equal(t, reason, refused.Reason)
					require.Equal(t, "f", refused.Feature)
					require.Equal(t, billed, refused.Subject)
					require.Equal(t, status, refused.Status())
					require.Zero(t, runs)
					require.NoError(t, m.Flush(t.Context()))
					require.Empty(t, m.sink.Records())

					w := httptest.NewRecorder()
					WriteProblem(w, httptest.NewRequest("GET", "/", nil), err)
					require.Equal(t, status, w.Code)
					var body map[string]any
					require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
					require.Equal(t, string(reason), body["reason"])
					require.Equal(t, status == 401, w.Header().Get("WWW-Authenticate") != "")
					require.Equal(t, status == 429, w.Header().Get("Retry-After") != "")
				})
			}
		}
	}
}

// Of what isn't in the verdict, the rate refuses as well.
func TestRateAtEverySite(t *testing.T) {
	t.Parallel()
	for name, site := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f, runs := m.Feature("f", Rate(0.001, 2)), 0
			who := Caller{Subject: "s"}
			for range 2 {
				require.NoError(t, site(f, who, func() { runs++ }))
			}
			refused := asRefused(t, site(f, who, func() { runs++ }))
			require.Equal(t, license.TooFast, refused.Reason)
			require.InDelta(t, 1000, refused.RetryAfter.Seconds(), 60)
			require.NoError(t, site(f, Caller{Subject: "other"}, func() {}))
			require.Equal(t, 2, runs)
			require.EqualValues(t, 2, m.billed(t, "f", "s"))
		})
	}
}

func TestAllowUnknownAtEverySite(t *testing.T) {
	t.Parallel()
	for name, site := range sites {
		m := open(t, allowUnknown, func(c *Config) { c.Checker = static(nil) })
		f := m.Feature("f")
		require.NoError(t, site(f, Caller{Key: license.NewKey("down"), Subject: "cus_9"}, func() {}), name)
		require.Equal(t, license.Unavailable, asRefused(t, site(f, Caller{Key: license.NewKey("down")}, func() {})).Reason, "nobody to bill")
		require.Equal(t, license.NotFound, asRefused(t, site(f, Caller{Key: license.NewKey("?"), Subject: "cus_9"}, func() {})).Reason, "denied is not unknown")
		require.EqualValues(t, 1, m.billed(t, "f", "cus_9"))
	}
}

// What the Checker refuses takes nothing of the rate, so that nobody else's key can
// use it up; neither does a call that came too fast.
func TestWhatTakesOfTheRate(t *testing.T) {
	t.Parallel()
	verdict := license.Verdict{Status: license.Denied, Reason: license.Unpaid, Subject: "s"}
	m := open(t, func(c *Config) {
		c.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) { return verdict, nil })
	})
	f := m.Feature("f", Rate(1, 2))
	synctest.Test(t, func(t *testing.T) {
		do := func(err error) license.Reason {
			refused, ok := errors.AsType[*RefusedError](Do(as("s"), f, func(context.Context) error { return err }))
			if !ok {
				return ""
			}
			return refused.Reason
		}
		for range 9 {
			require.Equal(t, license.Unpaid, do(nil))
		}
		verdict = allowed("s")
		require.Empty(t, do(nil))
		require.Empty(t, do(errors.New("fails, and has taken its part")))
		for range 9 {
			require.Equal(t, license.TooFast, do(nil))
		}
		time.Sleep(time.Second)
		require.Empty(t, do(nil), "refusals have not put it off")
		require.Equal(t, license.TooFast, do(nil))
	})
	require.EqualValues(t, 2, m.billed(t, "f", "s"))
}

func TestRefusalsSayWhenToTryAgain(t *testing.T) {
	t.Parallel()
	var verdict license.Verdict
	var down error
	m := open(t, func(c *Config) {
		c.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) { return verdict, down })
	})
	f := m.Feature("f")
	synctest.Test(t, func(t *testing.T) {
		retry := func() time.Duration {
			_, _, err := f.Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("secret-key")}))
			return asRefused(t, err).RetryAfter
		}
		verdict = license.Verdict{Status: license.Denied, Reason: license.TooFast, Until: time.Now().Add(90 * time.Second)}
		require.Equal(t, 90*time.Second, retry())
		verdict.Until = time.Time{}
		require.Zero(t, retry())
		down = errors.New("connection refused")
		require.Zero(t, retry())
		down = fmt.Errorf("paused: %w", pause(7*time.Second))
		require.Equal(t, 7*time.Second, retry())
		down = fmt.Errorf("no row for secret-key: %w", pause(8*time.Second))
		require.Equal(t, 8*time.Second, retry())
	})
}

type pause time.Duration

func (pause) Error() string               { return "paused" }
func (p pause) RetryAfter() time.Duration { return time.Duration(p) }

// Errors one of whose methods panics.
type (
	brokenRetryAfter struct{ error }
	brokenAs         struct{ error }
)

func (brokenRetryAfter) RetryAfter() time.Duration { panic("no header in this reply") }
func (brokenAs) As(any) bool                       { panic("no target") }

func TestBrokenErrorsOfTheCheckerAreUnknown(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	for _, broken := range []error{brokenRetryAfter{down}, brokenAs{down}} {
		m := open(t, func(c *Config) {
			c.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
				return license.Verdict{}, fmt.Errorf("wrapped: %w", broken)
			})
		})
		_, _, err := m.Feature("f").Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("good")}))
		refusal := asRefused(t, err)
		require.Equal(t, license.Unavailable, refusal.Reason)
		require.Zero(t, refusal.RetryAfter)
		require.ErrorContains(t, refusal.Cause, "the Checker panicked with a string")
	}
}

// A bug in the hook neither ends the request nor changes what was decided.
func TestOnDecisionPanics(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) {
		c.Checker = static(map[string]license.Verdict{"good": allowed("s")})
		c.OnDecision = func(_ context.Context, d Decision) { panic("no row for " + d.Caller.Key.Reveal()) }
	})
	for name, site := range sites {
		f, runs := m.Feature(name), 0
		require.NoError(t, site(f, Caller{Key: license.NewKey("good")}, func() { runs++ }))
		require.Error(t, site(f, Caller{Key: license.NewKey("canary")}, func() { runs++ }))
		require.Equal(t, 1, runs)
		require.EqualValues(t, 1, m.billed(t, name, "s"))
	}
	require.Len(t, m.logs.all(), 1, "once a minute")
	require.Contains(t, m.logs.all()[0], "OnDecision panicked with a string")
	require.NotContains(t, m.logs.all()[0], "no row for")
}

func TestNilRefusals(t *testing.T) {
	t.Parallel()
	m := open(t)
	h := Middleware(m.Feature("f"), Identify(func(*http.Request) (Caller, error) {
		var slip *RefusedError
		return Caller{Subject: "s"}, slip
	}))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("ran") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, 503, w.Code)

	w = httptest.NewRecorder()
	var slip *RefusedError
	WriteProblem(w, httptest.NewRequest("GET", "/", nil), slip)
	require.Equal(t, 500, w.Code)
}

func TestHealthHasTheChecker(t *testing.T) {
	t.Parallel()
	ill := &illChecker{}
	m := open(t, func(c *Config) { c.Checker = ill })
	require.NoError(t, m.Health())
	ill.why = errors.New("paused")
	require.EqualError(t, m.Health(), "meter: Checker: paused")
}

type illChecker struct {
	license.Checker
	why error
}

func (c *illChecker) Health() error { return c.why }

func TestControlCharactersAreFound(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("k", n))
				b[at] = byte(c)
				bad := c < ' ' || c >= 0x7f // alone, a byte above ASCII is not UTF-8
				if hasControl(string(b)) != bad {
					t.Fatalf("hasControl(%q) = %v", b, !bad)
				}
			}
		}
	}
	require.False(t, hasControl("ключ-длинный-€"))
	require.True(t, hasControl("ключ-длинный-\u0085"))
}
