package meter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// A caller sees its own use and nobody else's, with the quota that it would be held to,
// also before its first call.
func TestUsage(t *testing.T) {
	t.Parallel()
	quota := &license.Quota{Limit: 100, Used: 3, Start: time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC), End: time.Date(2226, 2, 15, 0, 0, 0, 0, time.UTC)}
	m := open(t, func(c *Config) {
		c.Identify = KeyHeader("X-Key")
		c.Checker = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			v := license.Verdict{Status: license.Allowed, Subject: "cus_" + q.Key.Reveal()}
			switch {
			case q.Key.Reveal() == "unknown":
				return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
			case q.Feature == "export":
				return license.Verdict{Status: license.Denied, Reason: license.NotEntitled, Subject: v.Subject}, nil
			case q.Feature == "pages":
				return license.Verdict{Status: license.Denied, Reason: license.Unpaid, Subject: v.Subject}, nil
			case q.Feature == "report":
				v.Quota = quota
			}
			return v, nil
		})
	})
	report, seats := m.Feature("report"), m.Feature("seats", Kind(sink.Max), Unit("seat"))
	_, _ = m.Feature("export"), m.Feature("pages")
	ask := func(h http.Handler, key string) (int, string) {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		if key != "" {
			r.Header.Set("X-Key", key)
		}
		h.ServeHTTP(w, r)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		return w.Code, w.Body.String()
	}
	_, call, err := report.Begin(WithCaller(t.Context(), Caller{Key: license.NewKey("ada")}), Hold(8))
	require.NoError(t, err)
	defer call.Cancel()
	require.NoError(t, report.Add(t.Context(), "cus_ada", 2))
	require.NoError(t, report.Add(t.Context(), "cus_bob", 4))
	require.NoError(t, seats.Set(t.Context(), "cus_ada", 12))
	code, body := ask(m.Usage(nil, report, seats), "ada")
	require.Equal(t, 200, code)
	start, end := month()
	require.JSONEq(t, fmt.Sprintf(`{"subject":"cus_ada","usage":[
		{"feature":"report","kind":"sum","quantity":2,"held":8,"used":3,"limit":100,"left":87,"start":"2026-01-15T00:00:00Z","end":"2226-02-15T00:00:00Z"},
		{"feature":"seats","unit":"seat","kind":"max","quantity":12,"start":%q,"end":%q}]}`, start, end), body)
	code, body = ask(m.Usage(nil), "new")
	require.Equal(t, 200, code)
	var answer struct {
		Usage []map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer))
	require.Len(t, answer.Usage, 3, "%s", body)
	require.Equal(t, "pages", answer.Usage[0]["feature"], "unpaid is no secret")
	require.EqualValues(t, 97, answer.Usage[1]["left"])

	code, body = ask(m.Usage(nil), "unknown")
	require.Equal(t, 403, code)
	require.Contains(t, body, `"reason":"not-found"`)
	require.NotContains(t, body, "unknown\"")
	code, _ = ask(m.Usage(nil), "")
	require.Equal(t, 401, code)
	code, _ = ask(m.Usage(nil, m.Feature("export")), "ada")
	require.Equal(t, 403, code)
	w := httptest.NewRecorder()
	m.Usage(nil).ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	require.Equal(t, 405, w.Code)
	require.Panics(t, func() { open(t).Usage(nil) })
	require.Panics(t, func() { m.Usage(nil, nil) })
	require.Equal(t, []string{"cus_ada", "cus_bob"}, slices.Sorted(maps.Keys(maps.Collect(report.Totals()))), "looking is no use")
}

// month is the running one.
func month() (start, end string) {
	now := time.Now().UTC()
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	return first.Format(time.RFC3339), first.AddDate(0, 1, 0).Format(time.RFC3339)
}

// usageAs asks a usage handler as a subject.
func usageAs(h http.Handler, subject string) (int, string) {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Subject", subject)
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// Who can't be told from somebody who only claims to be a customer learns nothing of it.
func TestUsageIsOfKnownCallersOnly(t *testing.T) {
	t.Parallel()
	verdict, fails := license.Verdict{Status: license.Allowed, Subject: "s"}, error(nil)
	m := open(t, func(c *Config) {
		c.AllowUnknown, c.Identify = true, bySubject
		c.Checker = license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) { return verdict, fails })
	})
	f := m.Feature("f")
	require.NoError(t, f.Add(t.Context(), "s", 5))
	code, body := usageAs(m.Usage(nil), "s")
	require.Equal(t, 200, code)
	require.Contains(t, body, `"quantity":5`)
	for name, change := range map[string]func(){
		"error":   func() { fails = errors.New("down") },
		"unknown": func() { verdict, fails = license.Verdict{}, nil },
		"over":    func() { verdict.Status, verdict.Until = license.Allowed, time.Now().Add(-time.Hour) },
	} {
		change()
		require.True(t, try(t, f, "s", 0, Quantity(0)), "%s: calls are let through", name)
		code, body = usageAs(m.Usage(nil), "s")
		require.Equal(t, 503, code, name)
		require.NotContains(t, body, "quantity", name)
	}
}

// Looking changes nothing of what calls are held to, whatever the declaration that is
// looked at has; and it shows the Limit that some declaration has.
func TestUsageChangesNothing(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Identify = bySubject })
	bare := m.Feature("f")
	f := m.Feature("f", limited(license.Quota{Limit: 3}))
	m.Feature("f", Quantity(2))
	require.True(t, try(t, f, "s", 2))
	before := f.Total("s")
	for _, h := range []http.Handler{m.Usage(nil), m.Usage(nil, bare), m.Usage(nil, f)} {
		code, body := usageAs(h, "s")
		require.Equal(t, 200, code)
		require.Contains(t, body, `"limit":3,"left":1`)
		require.Equal(t, before, f.Total("s"))
	}
	_, body := usageAs(m.Usage(nil), "new")
	require.Contains(t, body, `"limit":3,"left":3`)
	require.Nil(t, f.ledger.Tally("new"))
	strict := m.Feature("f", limited(license.Quota{Limit: 1}))
	_, body = usageAs(m.Usage(nil, strict), "s")
	require.Contains(t, body, `"limit":1,"left":0`)
	require.Equal(t, before, f.Total("s"))
	require.True(t, try(t, f, "s", 1))
	require.False(t, try(t, f, "s", 1))
}
