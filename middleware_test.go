package meter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// A request's end, by what the handler did and whether the client was there.
func TestMiddlewareCountsByResult(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	body := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }
	nothing := func(http.ResponseWriter, *http.Request) {}
	leave := func(_ http.ResponseWriter, r *http.Request) { r.Context().Value(leaving{}).(func())() }
	copied := func(w http.ResponseWriter, _ *http.Request) { w.(io.ReaderFrom).ReadFrom(strings.NewReader("x")) }
	failed := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("lost")) }
	flushed := func(w http.ResponseWriter, _ *http.Request) { http.NewResponseController(w).Flush() }
	panics := func(v any) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) { panic(v) } }
	boom, abort := panics("boom"), panics(http.ErrAbortHandler)
	do := func(steps ...http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for _, step := range steps {
				step(w, r)
			}
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		late    bool // its deadline has passed
		panics  any
		want    Result
		counted bool
	}{
		"nothing written":                {handler: nothing, counted: true},
		"body only":                      {handler: body, want: Result{Status: 200}, counted: true},
		"created":                        {handler: status(201), want: Result{Status: 201}, counted: true},
		"redirect":                       {handler: status(303), want: Result{Status: 303}, counted: true},
		"not modified":                   {handler: status(304), want: Result{Status: 304}, counted: true},
		"client's fault":                 {handler: status(400), want: Result{Status: 400}},
		"server's fault":                 {handler: status(500), want: Result{Status: 500}},
		"first status wins":              {handler: do(status(500), status(200)), want: Result{Status: 500}},
		"informational":                  {handler: do(status(103), status(404)), want: Result{Status: 404}},
		"gone, nothing written":          {handler: leave, want: Result{Gone: true, Unseen: true}},
		"gone after the answer":          {handler: do(status(200), leave), want: Result{Gone: true, Status: 200}, counted: true},
		"gone while it was written":      {handler: do(body, leave, body), want: Result{Gone: true, Status: 200}, counted: true},
		"gone before the status":         {handler: do(leave, status(200)), want: Result{Gone: true, Unseen: true, Status: 200}},
		"gone before the body":           {handler: do(leave, body, body), want: Result{Gone: true, Unseen: true, Status: 200}},
		"gone before the copy":           {handler: do(leave, copied), want: Result{Gone: true, Unseen: true, Status: 200}},
		"gone before the flush":          {handler: do(leave, flushed), want: Result{Gone: true, Unseen: true, Status: 200}},
		"gone after an informational":    {handler: do(status(103), leave, body), want: Result{Gone: true, Unseen: true, Status: 200}},
		"deadline, nothing written":      {handler: nothing, late: true, want: Result{Gone: true, Unseen: true}},
		"deadline, and written":          {handler: body, late: true, want: Result{Gone: true, Status: 200}, counted: true},
		"panic":                          {handler: boom, panics: "boom", want: Result{Panicked: true}},
		"panic after the answer":         {handler: do(status(200), boom), panics: "boom", want: Result{Panicked: true, Status: 200}},
		"abort":                          {handler: abort, panics: http.ErrAbortHandler, want: Result{Panicked: true}},
		"abort while streaming":          {handler: do(status(200), body, abort), panics: http.ErrAbortHandler, want: Result{Panicked: true, Status: 200}},
		"abort after an error":           {handler: do(status(502), abort), panics: http.ErrAbortHandler, want: Result{Panicked: true, Status: 502}},
		"abort, gone":                    {handler: do(leave, abort), panics: http.ErrAbortHandler, want: Result{Gone: true, Unseen: true}},
		"abort, gone while streaming":    {handler: do(body, leave, abort), panics: http.ErrAbortHandler, want: Result{Gone: true, Status: 200}, counted: true},
		"abort after a write that fails": {handler: do(body, failed, abort), panics: http.ErrAbortHandler, want: Result{Gone: true, Status: 200}, counted: true},
		"a write that fails":             {handler: do(body, failed), want: Result{Status: 200}, counted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			var seen []Result
			note := CountWhen(func(r Result) bool { seen = append(seen, r); return false })
			for _, opts := range [][]Option{{Identify(bySubject)}, {Identify(bySubject), note}} {
				ctx, cancel := context.WithCancel(t.Context())
				if test.late {
					cancel()
					ctx, cancel = context.WithTimeout(t.Context(), -1)
				}
				r := httptest.NewRequestWithContext(context.WithValue(ctx, leaving{}, func() { cancel() }), "POST", "/", nil)
				r.Header.Set("X-Subject", "s")
				func() {
					defer func() { require.Equal(t, test.panics, recover()) }()
					Middleware(f, opts...)(test.handler).ServeHTTP(loses{httptest.NewRecorder()}, r)
				}()
				cancel()
			}
			require.Equal(t, []Result{test.want}, seen)
			want := int64(0)
			if test.counted {
				want = 1
			}
			require.Equal(t, want, f.Total("s").Quantity)
		})
	}
}

type leaving struct{} // key of what makes the client leave

// loses is a writer whose client is not there for the word "lost".
type loses struct{ *httptest.ResponseRecorder }

func (l loses) Write(p []byte) (int, error) {
	if string(p) == "lost" {
		return 0, io.ErrClosedPipe
	}
	return l.ResponseRecorder.Write(p)
}

func (l loses) ReadFrom(src io.Reader) (int64, error) { return io.Copy(l.ResponseRecorder, src) }

func TestPanicKeepsItsStack(t *testing.T) {
	t.Parallel()
	m := open(t)
	h := Middleware(m.Feature("f"), Identify(bySubject))(http.HandlerFunc(panicInHandler))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Subject", "s")
	defer func() {
		require.NotNil(t, recover())
		require.Contains(t, string(debug.Stack()), "panicInHandler", "what the server's log would show")
	}()
	h.ServeHTTP(httptest.NewRecorder(), r)
}

func panicInHandler(http.ResponseWriter, *http.Request) { panic("boom") }

func TestGoexitIsPanicked(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	var seen Result
	h := Middleware(f, Identify(bySubject), CountWhen(func(r Result) bool { seen = r; return countsByDefault(r) }))(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			runtime.Goexit()
		}))
	done := make(chan bool)
	go func() {
		defer close(done)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Subject", "s")
		h.ServeHTTP(httptest.NewRecorder(), r)
		done <- true
	}()
	require.False(t, <-done, "Goexit goes on")
	require.Equal(t, Result{Panicked: true, Status: 200}, seen)
	require.Zero(t, f.Total("s").Quantity)
}

func TestMiddlewareWiring(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	require.Contains(t, panicOf(func() { Middleware(f) }), "Config.Identify")
	require.Contains(t, panicOf(func() { Middleware(f, Identify(nil)) }), "Config.Identify")
	require.Contains(t, panicOf(func() { Middleware(f, KeyBearer())(nil) }), "nil handler")
	require.Contains(t, panicOf(func() { Middleware(f, KeyBearer(), nil) }), "nil option")

	from := func(subject string) Identify {
		return func(*http.Request) (Caller, error) { return Caller{Subject: subject}, nil }
	}
	m = open(t, func(c *Config) { c.Identify = from("config") })
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	run := func(mw func(http.Handler) http.Handler) {
		mw(ok).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	run(Middleware(m.Feature("a")))
	run(Middleware(m.Feature("b", from("feature"))))
	run(Middleware(m.Feature("c", from("feature")), from("site")))
	require.NoError(t, m.Flush(t.Context()))
	require.EqualValues(t, 1, m.sink.Total("a", "config"))
	require.EqualValues(t, 1, m.sink.Total("b", "feature"))
	require.EqualValues(t, 1, m.sink.Total("c", "site"))
}

func TestMiddlewareRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("session store: connection refused")
	m := open(t, func(c *Config) {
		c.Checker = static(map[string]license.Verdict{"good": allowed("s"), "unpaid": {Status: license.Denied, Reason: license.Unpaid}})
	})
	f := m.Feature("f", Refuse(nil))
	ran := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ran++ })
	serve := func(h http.Handler, key string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		if key != "" {
			r.Header.Set("X-Key", key)
		}
		h.ServeHTTP(w, r)
		return w
	}
	h := Middleware(f, KeyHeader("X-Key"))(handler)
	require.Equal(t, 200, serve(h, "good").Code)
	w := serve(h, "")
	require.Equal(t, 401, w.Code)
	require.Equal(t, `ApiKey realm="meter", header="X-Key"`, w.Header().Get("WWW-Authenticate"))
	require.Contains(t, w.Body.String(), `"feature":"f"`)
	require.Equal(t, 402, serve(h, "unpaid").Code)
	require.Equal(t, 403, serve(h, "nonsense").Code)
	require.Equal(t, 503, serve(h, "down").Code)
	require.Empty(t, serve(h, "down").Header().Get("Retry-After"), "nobody knows")

	unsure := Middleware(f, Identify(func(*http.Request) (Caller, error) { return Caller{}, broken }))(handler)
	w = serve(unsure, "")
	require.Equal(t, 503, w.Code, "an error means unknown, never denied")
	require.NotContains(t, w.Body.String(), "session store")

	var told error
	teapot := Middleware(f, KeyHeader("X-Key"), Refuse(func(w http.ResponseWriter, _ *http.Request, err error) {
		told = err
		w.WriteHeader(418)
	}))(handler)
	require.Equal(t, 418, serve(teapot, "unpaid").Code)
	require.Equal(t, license.Unpaid, asRefused(t, told).Reason)
	require.Equal(t, 1, ran)
	require.EqualValues(t, 1, m.billed(t, "f", "s"))
}

func TestMiddlewareInShadow(t *testing.T) {
	t.Parallel()
	var told []Decision
	m := open(t, shadow, func(c *Config) {
		c.OnDecision = func(_ context.Context, d Decision) { told = append(told, d) }
		c.Checker = static(nil)
	})
	h := Middleware(m.Feature("f"), KeyHeader("X-Key"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
	}))
	for _, keys := range [][]string{nil, {"a", "b"}, {"unknown"}} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header["X-Key"] = keys
		h.ServeHTTP(w, r)
		require.Equal(t, 204, w.Code)
	}
	require.Len(t, told, 3)
	for _, d := range told {
		require.True(t, d.Shadow)
		require.NotNil(t, d.Refusal)
	}
	require.NoError(t, m.Flush(t.Context()))
	require.Empty(t, m.sink.Records())
	require.Len(t, m.logs.all(), 1, "once a minute")
	require.Contains(t, m.logs.all()[0], "nobody is billed for")
}

// A success that could not be counted is given away only if it is out already.
func TestMiddlewareCantCount(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"nothing written": {func(http.ResponseWriter, *http.Request) {}, 503},
		"written":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			h := Middleware(m.Feature("f"), Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				require.NoError(t, m.Shutdown(r.Context()))
				test.handler(w, r)
			}))
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Subject", "s")
			h.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.Len(t, m.logs.all(), 1)
			require.Contains(t, m.logs.all()[0], "ERROR meter: call not counted feature=f subject=s quantity=1")

			w = httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, 503, w.Code, "new calls are refused after Shutdown")
		})
	}
}

// A handler may give its call away.
func TestHandlerCancelsItsCall(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	h := Middleware(f, Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, ok := CallFrom(r.Context())
		require.True(t, ok)
		call.Cancel()
	}))
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Subject", "s")
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	require.Zero(t, f.Total("s").Quantity)
	require.Empty(t, m.logs.all())
}

// Counted before the server ends the response: clients that wait for that end find
// the count there.
func TestCountIsThereBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(http.ResponseWriter){
		"nothing": func(http.ResponseWriter) {},
		"short":   func(w http.ResponseWriter) { fmt.Fprint(w, "x") },
		"chunked": func(w http.ResponseWriter) { w.(http.Flusher).Flush(); fmt.Fprint(w, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := open(t)
			f := m.Feature("f")
			server := httptest.NewServer(Middleware(f, Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w) })))
			defer server.Close()
			for i := range 50 {
				getBody(t, server.URL)
				require.EqualValues(t, i+1, f.Total("s").Quantity)
			}
		})
	}
}

// What is not promised: a client that has all of the body doesn't wait for the end.
func TestClientMayBeAheadOfTheCount(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	rest := make(chan bool)
	server := httptest.NewServer(Middleware(f, Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1")
		fmt.Fprint(w, "x")
		w.(http.Flusher).Flush()
		<-rest
	})))
	getBody(t, server.URL)
	require.Zero(t, f.Total("s").Quantity)
	close(rest)
	server.Close() // waits for the handler
	require.EqualValues(t, 1, f.Total("s").Quantity)
}

func getBody(t *testing.T, url string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	r.Header.Set("X-Subject", "s")
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
}

func TestTwoMiddlewares(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Identify = bySubject })
	api, report := m.Feature("api"), m.Feature("report")
	h := Middleware(api)(Middleware(report)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, SetQuantity(r.Context(), 5))
		call, ok := CallFrom(r.Context())
		require.True(t, ok)
		require.Equal(t, "s", call.Caller().Subject)
		require.NoError(t, Do(r.Context(), m.Feature("nested"), func(context.Context) error { return nil }))
	})))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Subject", "s")
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.EqualValues(t, 5, m.billed(t, "report", "s"))
	require.EqualValues(t, 1, m.billed(t, "api", "s"))
	require.EqualValues(t, 1, m.billed(t, "nested", "s"), "inherits the caller")
}

// The server removes a form's temporary files if it sees the form.
func TestMultipartFilesAreRemoved(t *testing.T) {
	t.Parallel()
	m := open(t)
	files := make(chan string, 1)
	server := httptest.NewServer(Middleware(m.Feature("f"), Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, r.ParseMultipartForm(1))
		file, err := r.MultipartForm.File["f"][0].Open()
		require.NoError(t, err)
		files <- file.(*os.File).Name()
		file.Close()
	})))
	var body strings.Builder
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("f", "f")
	_, _ = part.Write(make([]byte, 1<<20))
	form.Close()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", server.URL, strings.NewReader(body.String()))
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.Header.Set("X-Subject", "s")
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	res.Body.Close()
	server.Close() // waits for the server's side of the request
	_, err = os.Stat(<-files)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What is checked, limited and told about allocates no more than what is not.
func TestMiddlewareAllocatesNoMoreForALicense(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	verdicts := cache.New(cache.Config{Checker: static(map[string]license.Verdict{"good": allowed("s")})})
	checked := open(t, func(c *Config) { c.Checker, c.MeterProvider = verdicts, &recorder{} })
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Key", "good")
	r.Header.Set("X-Subject", "s")
	allocations := func(h http.Handler) float64 {
		w := &discard{header: http.Header{}}
		return testing.AllocsPerRun(200, func() { clear(w.header); h.ServeHTTP(w, r) })
	}
	bare := allocations(Middleware(open(t).Feature("f"), Identify(bySubject))(handler))
	require.Equal(t, bare, allocations(Middleware(checked.Feature("f", Rate(1e9, 1e9)), KeyHeader("X-Key"))(handler)))
	require.EqualValues(t, 201, checked.Feature("f").Total("s").Quantity)
}

func TestMiddlewareAllocates(t *testing.T) {
	m := open(t, func(c *Config) { c.Checker = static(map[string]license.Verdict{"good": allowed("s")}) })
	key := license.NewKey("good") // somebody keeps it, as a cache of verdicts would
	h := Middleware(m.Feature("f", Rate(1e9, 1e9)), KeyHeader("X-Key"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Key", key.Reveal())
	w := &discard{header: http.Header{}}
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) }), 2.0)
}

// discard stands in for the server's writer without its costs.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Flush()                      {}
func (d *discard) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(io.Discard, r)
}
