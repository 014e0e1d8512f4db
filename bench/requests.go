package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/felixge/httpsnoop"
	"github.com/go-chi/httprate"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	nometrics "go.opentelemetry.io/otel/metric/noop"
	notraces "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/time/rate"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
)

const (
	keyHeader = "X-License-Key"
	callers   = 1000
	endless   = 1e9 // a second: nobody is refused
)

// middlewares wrap a handler; each but the bare one finds the customer in a header.
var middlewares = []struct {
	name  string
	class class
	wrap  func(s *stage, next http.Handler) http.Handler
}{
	{"meter: check, rate, count", ours, wholeMeter},
	{"meter: count", ours, countingMeter(meter.Config{})},
	{"meter: count, in memory", ours, countingMeter(meter.Config{Dir: meter.InMemory})},
	{bareHandler, limit, func(_ *stage, next http.Handler) http.Handler { return next }},
	{"limit: request with a context value", limit, contextual},
	{"peer: golang-lru, x/time/rate, count", peer, composed},
	{"peer: prometheus per customer", peer, promPerCustomer},
	{"peer: httprate by header", peer, httpRate},
	{"peer: otelhttp, no-op providers", peer, func(_ *stage, next http.Handler) http.Handler {
		return otelhttp.NewHandler(next, "reports", otelhttp.WithMeterProvider(nometrics.NewMeterProvider()), otelhttp.WithTracerProvider(notraces.NewTracerProvider()))
	}},
}

const bareHandler = "limit: bare handler"

func requestTables() []table {
	added := table{name: "middleware", what: "what is added to a request, over a response writer that does nothing, 1,000 customers", unit: "ns", base: bareHandler}
	loopback := table{name: "request over loopback", what: "one request by one client over a kept connection, client and server in this process", unit: "ns"}
	for _, g := range goroutines {
		h := heat{columns: []string{plural(g, "goroutine")}}
		for _, m := range middlewares {
			h.contenders = append(h.contenders, contender{m.name, m.class, func(s *stage) turn {
				return serving(s, g, m.wrap(s, http.HandlerFunc(answer)))
			}})
		}
		added.heats = append(added.heats, h)
		h = heat{columns: h.columns}
		for _, m := range middlewares {
			h.contenders = append(h.contenders, contender{m.name, m.class, func(s *stage) turn {
				return overLoopback(s, g, m.wrap(s, http.HandlerFunc(answer)))
			}})
		}
		loopback.heats = append(loopback.heats, h)
	}
	return []table{added, loopback}
}

var answered = []byte(`{"ok":true}`)

func answer(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answered)
}

func request(who int) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/reports", nil)
	r.Header.Set(keyHeader, customer(who))
	r.Header.Set("User-Agent", "bench")
	r.Header.Set("Accept", "application/json")
	return r
}

// serving has goroutines serve requests of their own.
func serving(s *stage, goroutines int, h http.Handler) turn {
	const own = 64
	type worker struct {
		w        *writer
		requests []*http.Request
	}
	workers := make([]worker, goroutines)
	for g := range workers {
		workers[g].w = &writer{header: http.Header{}}
		for i := range own {
			workers[g].requests = append(workers[g].requests, request((g*own+i*13)%callers))
		}
	}
	return func() []float64 {
		var done atomic.Int64
		var over atomic.Bool
		var running sync.WaitGroup
		began := time.Now()
		for _, w := range workers {
			running.Go(func() {
				n := int64(0)
				for ; !over.Load(); n += own {
					for _, r := range w.requests {
						clear(w.w.header)
						h.ServeHTTP(w.w, r)
					}
					if time.Since(began) > s.slice {
						over.Store(true)
					}
				}
				done.Add(n)
			})
		}
		running.Wait()
		return []float64{float64(time.Since(began)) / float64(done.Load())}
	}
}

func overLoopback(s *stage, goroutines int, h http.Handler) turn {
	server := httptest.NewServer(h)
	s.defers(server.Close)
	transport := &http.Transport{MaxIdleConns: 2 * goroutines, MaxIdleConnsPerHost: 2 * goroutines}
	s.defers(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	ask := func(i uint32) {
		r := got(http.NewRequest(http.MethodGet, server.URL+"/reports", nil))
		r.Header.Set(keyHeader, customer(int(i)))
		response := got(client.Do(r))
		_, err := io.Copy(io.Discard, response.Body)
		must(err)
		must(response.Body.Close())
		if response.StatusCode != http.StatusOK {
			panic(response.Status)
		}
	}
	tr := uniform(callers)
	return func() []float64 { return []float64{each(tr, goroutines, 5*s.slice, ask)} }
}

// everybody has a license, and is billed under the name that is the key.
var everybody = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
	return license.Verdict{Status: license.Allowed, Subject: q.Key.Reveal()}, nil
})

func (s *stage) licenses(size int) *cache.Cache {
	return cache.New(cache.Config{Checker: everybody, Fresh: time.Hour, Rate: endless, Size: size})
}

// wholeMeter does what a vendor would have it do: is there a license, is it used too
// often, and did the call succeed; then it counts, safe from a kill.
func wholeMeter(s *stage, next http.Handler) http.Handler {
	m := s.meter(meter.Config{Checker: s.licenses(2 * callers), Identify: meter.KeyHeader(keyHeader)})
	return meter.Middleware(m.Feature(feature), meter.Rate(endless, endless))(next)
}

func countingMeter(cfg meter.Config) func(*stage, http.Handler) http.Handler {
	return func(s *stage, next http.Handler) http.Handler {
		cfg.Identify = func(r *http.Request) (meter.Caller, error) {
			return meter.Caller{Subject: r.Header.Get(keyHeader)}, nil
		}
		return meter.Middleware(s.meter(cfg).Feature(feature))(next)
	}
}

type contextKey struct{}

// contextual is what every middleware takes at least that tells a handler something.
func contextual(_ *stage, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, w)))
	})
}

// composed is the middleware that a careful programmer writes from these packages in an
// hour; it forgets all when the process ends.
func composed(_ *stage, next http.Handler) http.Handler {
	type known struct {
		limiter *rate.Limiter
		until   time.Time
		uses    atomic.Int64
	}
	all := got(lru.New[string, *known](2 * callers))
	for i := range callers {
		all.Add(customer(i), &known{limiter: rate.NewLimiter(endless, endless), until: time.Now().Add(time.Hour)})
	}
	writers := sync.Pool{New: func() any { return new(statusWriter) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := all.Get(r.Header.Get(keyHeader))
		now := time.Now()
		if !ok || now.After(who.until) || !who.limiter.AllowN(now, 1) {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		watched := writers.Get().(*statusWriter)
		watched.ResponseWriter, watched.status = w, http.StatusOK
		next.ServeHTTP(watched, r)
		if watched.status < http.StatusBadRequest {
			who.uses.Add(1)
		}
		watched.ResponseWriter = nil
		writers.Put(watched)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func promPerCustomer(_ *stage, next http.Handler) http.Handler {
	v := promVector()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := httpsnoop.CaptureMetrics(next, w, r)
		v.WithLabelValues(strconv.Itoa(seen.Code), r.Header.Get(keyHeader)).Inc()
	})
}

func httpRate(_ *stage, next http.Handler) http.Handler {
	return httprate.LimitBy(endless, time.Minute, func(r *http.Request) (string, error) {
		return r.Header.Get(keyHeader), nil
	})(next)
}

// writer has the optional interfaces of net/http's own, and does nothing.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header                 { return w.header }
func (w *writer) Write(p []byte) (int, error)         { return len(p), nil }
func (w *writer) WriteString(s string) (int, error)   { return len(s), nil }
func (w *writer) WriteHeader(int)                     {}
func (w *writer) Flush()                              {}
func (w *writer) CloseNotify() <-chan bool            { return nil }
func (w *writer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}
