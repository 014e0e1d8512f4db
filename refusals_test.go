package meter

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

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

func noChecker(c *Config) { c.Checker = nil }

func shadow(c *Config) { c.Shadow = true }

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
