package meter

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

func TestRatePolicies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		feature string
		limit   rate.Limit
		burst   int
		want    string
	}{
		{"report", 100.0 / 60, 100, `"report";q=100;w=60`},
		{"report", 10, 10, `"report";q=10;w=1`},
		{"report", 100, 1, `"report";q=100;w=1`},
		{"report", 2, 3, `"report";q=4;w=2`},
		{"report", rate.Every(time.Hour), 1, `"report";q=1;w=3600`},
		{"report", 0.3, 1, `"report";q=1;w=4`},
		{"never again", 0, 7, `"never again";q=7`},
		{"hardly ever", 1e-300, 7, `"hardly ever";q=7`},
		{"report", 1e30, 1, `"report";q=999999999999999;w=1`},
		{`say "hi" \o/`, 1, 1, `"say \"hi\" \\o/";q=1;w=1`},
		{"отчёт 5%", 1, 1, `"%D0%BE%D1%82%D1%87%D1%91%D1%82 5%25";q=1;w=1`},
	} {
		require.Equal(t, test.want, fieldsOf(test.feature, allowance{test.limit, test.burst}).policy)
	}
}

func TestRateFields(t *testing.T) {
	t.Parallel()
	m := open(t)
	h := Middleware(m.Feature("f", Rate(0.4, 2)), Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
	}))
	synctest.Test(t, func(t *testing.T) {
		serve := func(subject string) (int, string, string) {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Subject", subject)
			h.ServeHTTP(w, r)
			if _, told := w.Header()["Ratelimit"]; told {
				require.Equal(t, `"f";q=2;w=5`, w.Header().Get("RateLimit-Policy"))
			}
			return w.Code, w.Header().Get("RateLimit"), w.Header().Get("Retry-After")
		}
		is := func(code int, limit, retry string) {
			t.Helper()
			c, l, r := serve("s")
			require.Equal(t, []any{code, limit, retry}, []any{c, l, r})
		}
		is(500, `"f";r=1;t=3`, "") // whatever the handler answers
		is(500, `"f";r=0;t=3`, "")
		is(429, `"f";r=0;t=3`, "3")
		time.Sleep(2 * time.Second)
		is(429, `"f";r=0;t=1`, "1")
		time.Sleep(500 * time.Millisecond)
		is(500, `"f";r=0;t=3`, "")
		code, limit, _ := serve("other")
		require.Equal(t, 500, code)
		require.Equal(t, `"f";r=1;t=3`, limit)
		code, limit, _ = serve("")
		require.Equal(t, 401, code)
		require.Empty(t, limit, "nobody's rate was looked at")
	})
}

func TestRateFieldsOfManyKinds(t *testing.T) {
	t.Parallel()
	// As far as ours go: an item that is a string, with integers.
	member := regexp.MustCompile(`^"(?:[ !#-\[\]-~]|\\["\\])*"(?:;[a-z]+=[0-9]{1,15})+$`)
	m := open(t)
	for _, feature := range []string{"f", `"\`, "отчёт", strings.Repeat("long", 25)} {
		for _, opt := range []Option{Rate(0, 1), Rate(1e-9, 3), Rate(1e30, 1<<62), Rate(1e9, 1e9)} {
			h := Middleware(m.Feature(feature, opt), Identify(bySubject))(http.NotFoundHandler())
			for range 2 {
				w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
				r.Header.Set("X-Subject", "s")
				h.ServeHTTP(w, r)
				for _, field := range []string{"RateLimit-Policy", "RateLimit"} {
					require.Len(t, w.Header().Values(field), 1)
					require.Regexp(t, member, w.Header().Get(field))
				}
			}
		}
	}
}

// Answers that are under way at once must not write into each other's fields.
func TestRateFieldsAreTheirOwn(t *testing.T) {
	t.Parallel()
	m := open(t)
	h := Middleware(m.Feature("f", Rate(0, 100)), Identify(bySubject))(http.NotFoundHandler())
	var all []http.Header
	for range 100 {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Subject", "s")
		h.ServeHTTP(w, r)
		all = append(all, w.Header())
		w.Header()["Ratelimit-Policy"][0] = "changed in place"
	}
	seen := map[string]bool{}
	for i, header := range all {
		seen[header.Get("RateLimit")] = true
		require.Equal(t, "changed in place", header.Get("RateLimit-Policy"), i)
	}
	require.Len(t, seen, 100)
}

func TestRateFieldsOfTwoMiddlewares(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Identify = bySubject })
	outer, inner := Middleware(m.Feature("api", Rate(1, 10))), Middleware(m.Feature("report", Rate(1, 1)))
	h := outer(inner(http.NotFoundHandler()))
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Subject", "s")
	h.ServeHTTP(w, r)
	require.Equal(t, []string{`"api";q=10;w=10`, `"report";q=1;w=1`}, w.Header().Values("RateLimit-Policy"))
	require.Equal(t, []string{`"api";r=9;t=1`, `"report";r=0;t=1`}, w.Header().Values("RateLimit"))

	w = httptest.NewRecorder()
	outer(outer(http.NotFoundHandler())).ServeHTTP(w, r)
	require.Len(t, w.Header().Values("RateLimit"), 1, "one policy, told once")
}

// Nobody is held to a rate under Shadow, so nobody shall slow down.
func TestNoRateFieldsInShadow(t *testing.T) {
	t.Parallel()
	m := open(t, shadow)
	h := Middleware(m.Feature("f", Rate(0.001, 1)), Identify(bySubject))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 2 {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Subject", "s")
		h.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
		require.Empty(t, w.Header())
	}
	require.EqualValues(t, 2, m.billed(t, "f", "s"))
}

// What was refused for another reason says nothing about a rate: who has no
// license shall not learn how much its owner uses.
func TestNoRateFieldsForStrangers(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) {
		c.Checker = static(map[string]license.Verdict{"expired": {Status: license.Denied, Reason: license.Expired, Subject: "s"}})
	})
	h := Middleware(m.Feature("f", Rate(1, 1)), KeyHeader("X-Key"))(http.NotFoundHandler())
	for _, key := range []string{"", "expired", "?", "down"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Key", key)
		h.ServeHTTP(w, r)
		require.GreaterOrEqual(t, w.Code, 401)
		require.NotContains(t, w.Header(), "Ratelimit")
		require.NotContains(t, w.Header(), "Ratelimit-Policy")
	}
}

// Over the wire, HEAD answers as GET does, less the body.
func TestTooFastOverTheWire(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", Rate(0.001, 1), Identify(bySubject))
	server := httptest.NewServer(Middleware(f)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	var heads []http.Header
	for i, method := range []string{"GET", "GET", "HEAD"} {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		require.NoError(t, err)
		r.Header.Set("X-Subject", "s")
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, `"f";q=1;w=1000`, res.Header.Get("RateLimit-Policy"))
		if i == 0 {
			require.Equal(t, 200, res.StatusCode)
			continue
		}
		require.Equal(t, 429, res.StatusCode)
		require.NotEmpty(t, res.Header.Get("Retry-After"))
		require.Equal(t, method == "GET", strings.Contains(string(body), "too-fast"))
		res.Header.Del("Date")
		res.Header.Del("Retry-After") // a second may have passed
		res.Header.Del("RateLimit")
		heads = append(heads, res.Header)
	}
	require.Equal(t, heads[0], heads[1])
	require.EqualValues(t, 1, f.Total("s").Quantity)
}

func TestWholeSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{
		-1: 1, 0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 1<<63 - 1: 9223372037,
	} {
		require.Equal(t, want, wholeSeconds(d), d)
	}
}
