package meter

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// A key shows up in no header, body, log, error, metric, span, printed value or file,
// whatever becomes of the request and however clumsy the Checker is.
func TestKeysShowUpNowhere(t *testing.T) {
	t.Parallel()
	const secret = "canary/key+4711 é"
	var out bytes.Buffer // all there is to see
	see := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	checkers := map[string]license.CheckerFunc{
		"allowed": func(context.Context, license.Query) (license.Verdict, error) { return allowed("cus_1"), nil },
		"denied": func(context.Context, license.Query) (license.Verdict, error) {
			return license.Verdict{Status: license.Denied, Reason: license.Blocked}, nil
		},
		"nameless": func(context.Context, license.Query) (license.Verdict, error) {
			return license.Verdict{Status: license.Allowed}, nil
		},
		"clumsy error": func(_ context.Context, q license.Query) (license.Verdict, error) {
			return license.Verdict{}, fmt.Errorf("no row for %s", q.Key.Reveal())
		},
		"error of net/url": func(_ context.Context, q license.Query) (license.Verdict, error) {
			return license.Verdict{}, &url.Error{Op: "Get", URL: "https://x/?key=" + url.QueryEscape(q.Key.Reveal()), Err: errors.New("refused")}
		},
		"path of net/url": func(_ context.Context, q license.Query) (license.Verdict, error) {
			return license.Verdict{}, &url.Error{Op: "Get", URL: "https://x/" + url.PathEscape(q.Key.Reveal()), Err: errors.New("refused")}
		},
		"panic": func(_ context.Context, q license.Query) (license.Verdict, error) {
			panic("no row for " + q.Key.Reveal())
		},
		"error as panic": func(_ context.Context, q license.Query) (license.Verdict, error) {
			panic(errors.New("no row for " + q.Key.Reveal()))
		},
	}
	escaped := url.QueryEscape(secret)
	give := map[string]func(*http.Request){
		"header": func(r *http.Request) { r.Header.Set("X-Key", secret) },
		"twice":  func(r *http.Request) { r.Header["X-Key"] = []string{secret, secret} },
		"long":   func(r *http.Request) { r.Header.Set("X-Key", secret+strings.Repeat("x", maxKey)) },
		"broken": func(r *http.Request) { r.Header.Set("X-Key", secret+"\x01") },
		"bearer": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) },
		"basic":  func(r *http.Request) { r.SetBasicAuth("u", secret) },
		"query":  func(r *http.Request) { r.URL.RawQuery = "key=" + escaped },
		"nobody": func(r *http.Request) { r.URL.RawQuery = "key=" + escaped + "&key=" + escaped },
	}
	identifies := []Identify{KeyHeader("X-Key"), KeyBearer(), KeyBasic(), KeyQuery("key"), KeyCert()}
	for name, checker := range checkers {
		for _, inShadow := range []bool{false, true} {
			dir, provider, spans := t.TempDir(), &recorder{}, tracetest.NewSpanRecorder()
			m := open(t, func(c *Config) {
				c.Dir, c.Checker, c.Shadow, c.MeterProvider = dir, checker, inShadow, provider
				c.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
				c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
				c.OnDecision = func(_ context.Context, d Decision) {
					see("%v %+v %#v", d, d, d)
					if name == "panic" {
						panic("on " + d.Caller.Key.Reveal())
					}
				}
			})
			for _, id := range identifies {
				h := Middleware(m.Feature("f", Rate(0.001, 1)), id, Refuse(func(w http.ResponseWriter, r *http.Request, err error) {
					see("%v %+v", err, err)
					for e := err; e != nil; e = errors.Unwrap(e) {
						see("%v %+v", e, e)
					}
					WriteProblem(w, r, err)
				}))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					call, _ := CallFrom(r.Context())
					see("%v %+v %v %+v", r.Context(), call.Caller(), call.Quantity(), callerOf(r.Context()))
				}))
				for _, present := range give {
					w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
					present(r)
					h.ServeHTTP(w, r)
					see("%v %v", w.Header(), w.Body)
				}
			}
			see("%v %v %v", m.Health(), m.Books(), provider.collect(t))
			require.NoError(t, m.Flush(t.Context()))
			see("%v", m.sink.Records())
			require.NoError(t, m.Shutdown(t.Context()))
			for _, span := range spans.Ended() {
				see("span %s %v %v %v", span.Name(), span.Attributes(), span.Events(), span.Status())
			}
			require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				see("%s %s", path, content)
				return err
			}))
		}
	}
	require.Contains(t, out.String(), "cus_1", "what it looks into is not empty")
	require.Contains(t, out.String(), "no row for [key]")
	require.Contains(t, out.String(), "\nspan ")
	for _, form := range []string{secret, escaped, url.PathEscape(secret), "canary", fmt.Sprintf("%x", secret), fmt.Sprintf("%v", []byte(secret))} {
		if at := strings.Index(out.String(), form); at >= 0 {
			t.Fatalf("%q in …%q…", form, out.String()[max(at-200, 0):at+len(form)])
		}
	}
}

// Whoever presents random keys leaves nothing behind: no series, no allowance, and
// no more in the cache of verdicts than it may hold.
func TestRandomKeysLeaveNothing(t *testing.T) {
	n := 50_000
	if *randomKeys > 0 {
		n = *randomKeys
	}
	verdicts := cache.New(cache.Config{Rate: 1e9, NegativeMax: 1000, Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		if q.Key.Reveal() == "known" {
			return allowed("s"), nil
		}
		return license.Verdict{Status: license.Denied, Reason: license.NotFound, Subject: "cus_" + q.Key.Reveal()}, nil
	})})
	m := open(t, func(c *Config) { c.Checker, c.MeterProvider = verdicts, &recorder{} })
	f := m.Feature("f", Rate(1e9, 1<<40))
	h := Middleware(f, KeyHeader("X-Key"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	r := httptest.NewRequest("GET", "/", nil)
	present := func(key string) int {
		w := &answer{discard: discard{header: http.Header{}}}
		r.Header.Set("X-Key", key)
		h.ServeHTTP(w, r)
		return w.status
	}
	require.Equal(t, 204, present("known"))
	before := heap()
	for i := range n {
		if status := present(fmt.Sprintf("random-%010d", i)); status != 403 {
			t.Fatalf("answered with %d", status)
		}
	}
	grown := heap() - before
	require.Less(t, grown, int64(3<<20), "a stranger may not cost 60 bytes")
	require.Equal(t, 204, present("known"))
	require.EqualValues(t, 2, f.Total("s").Quantity)
	require.Equal(t, 1, f.calls.limiter.all.Len(), "the customer's")
	require.EqualValues(t, n, f.decisions.by[2].Load())
	require.Len(t, m.Books(), 1)
	require.NoError(t, m.Flush(t.Context()))
	require.Len(t, m.sink.Records(), 1)
}

var randomKeys = flag.Int("random-keys", 0, "how many random keys TestRandomKeysLeaveNothing presents; 0: 50,000")

// heap is what is in use, after a garbage collection for Go's objects and another for
// what they had cleanups for.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

type answer struct {
	discard
	status int
}

func (a *answer) WriteHeader(status int) { a.status = status }

// A Checker's error may spell a key as an address or a quotation does.
func TestKeysAreHiddenInEverySpelling(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"CANARY key/1", "CANARY&1", `CANARY"1`, "CANÁRY/1", "CANARY%1"} {
		path := &url.URL{Scheme: "https", Host: "licenses.example", Path: "/keys/" + key}
		query := &url.URL{Scheme: "https", Host: "licenses.example", RawQuery: url.Values{"key": {key}}.Encode()}
		for _, err := range []error{
			errors.New("no license " + key),
			fmt.Errorf("no license %q", key),
			&url.Error{Op: "Get", URL: path.String(), Err: context.Canceled},
			&url.Error{Op: "Get", URL: query.String(), Err: context.Canceled},
		} {
			hidden := withoutKey(err, license.NewKey(key)).Error()
			require.NotContains(t, hidden, "CAN", "%q", key)
			require.Contains(t, hidden, "[key]")
		}
	}
}
