package meter

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// admissions are ways to check 1024 customers, hold them to a rate, and count them
// when they succeed.
type admissions struct {
	names  []string
	keys   []license.Key
	meter  bench
	plain  *lru.Cache[string, *customer]
	cached *cache.Cache
}

// customer is what the plain composition keeps of one.
type customer struct {
	limiter *rate.Limiter
	count   atomic.Int64
}

const (
	benchLimit = 1e6
	benchBurst = 1 << 30
)

func newAdmissions(b *testing.B) *admissions {
	a := &admissions{names: make([]string, 1024), keys: make([]license.Key, 1024)}
	a.plain, _ = lru.New[string, *customer](len(a.names))
	a.cached = cache.New(cache.Config{Rate: 1e9, Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		return allowed("cus_" + q.Key.Reveal()[12:]), nil
	})})
	a.meter = open(b, func(c *Config) { c.Checker = a.cached })
	for i := range a.names {
		a.names[i] = fmt.Sprintf("KEYKE-YKEYK-%05d", i)
		a.keys[i] = license.NewKey(a.names[i])
		a.plain.Add(a.names[i], &customer{limiter: rate.NewLimiter(benchLimit, benchBurst)})
	}
	return a
}

// BenchmarkAdmission compares with the plain composition of golang-lru, x/time/rate
// and an atomic: first the decision and the count alone, then whole middlewares,
// less the handler inside; the bare one is Middleware without check and rate. The ways take turns. One goroutine is judged by its best
// turn, so that a busy machine hardly changes the ratio; several by their median, for
// they get in each other's way, and that is part of the price.
func BenchmarkAdmission(b *testing.B) {
	a := newAdmissions(b)
	f := a.meter.Feature("f", Rate(benchLimit, benchBurst), KeyHeader("X-Key"))
	ctx := b.Context()
	for _, key := range a.keys {
		_, err := a.cached.Check(ctx, license.Query{Key: key, Feature: "f"})
		require.NoError(b, err)
	}
	bare := Middleware(open(b).Feature("bare"), Identify(func(*http.Request) (Caller, error) { return Caller{Subject: "s"}, nil }))
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	serve := func(h http.Handler) func() func(i int) {
		return func() func(int) {
			w, requests := &discard{header: http.Header{}}, make([]*http.Request, len(a.names))
			for i, name := range a.names {
				requests[i] = httptest.NewRequest("GET", "/", nil)
				requests[i].Header.Set("X-Key", name)
			}
			return func(i int) { clear(w.header); h.ServeHTTP(w, requests[i]) }
		}
	}
	ways := map[string]func() func(i int){ // what each goroutine does
		"meter": func() func(int) {
			x := &struct {
				_ [128]byte // goroutines must not share a cache line
				callContext
				_ [128]byte
			}{}
			return func(i int) {
				x.call = Call{}
				if f.admit(&x.call, ctx, &f.calls, Caller{Key: a.keys[i]}, nil) == nil {
					_ = x.call.settle()
				}
			}
		},
		"plain": func() func(int) {
			return func(i int) {
				if c, ok := a.plain.Get(a.names[i]); ok && c.limiter.Allow() {
					c.count.Add(1)
				}
			}
		},
		"check": func() func(int) {
			return func(i int) { _, _ = a.cached.Check(ctx, license.Query{Key: a.keys[i], Feature: "f"}) }
		},
		"handler":          serve(handler),
		"bare middleware":  serve(bare(handler)),
		"meter middleware": serve(Middleware(f)(handler)),
		"plain middleware": serve(a.plainly(handler)),
	}
	for _, goroutines := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			took := inTurns(b, ways, goroutines)
			own, plain := took["meter middleware"]-took["handler"], took["plain middleware"]-took["handler"]
			b.ReportMetric(took["bare middleware"]-took["handler"], "bare-middleware-ns")
			b.ReportMetric(took["check"], "check-ns")
			b.ReportMetric(took["meter"], "meter-ns")
			b.ReportMetric(took["plain"], "plain-ns")
			b.ReportMetric(took["meter"]/took["plain"], "meter/plain")
			b.ReportMetric(own, "middleware-ns")
			b.ReportMetric(plain, "plain-middleware-ns")
			b.ReportMetric(own/plain, "middleware/plain")
			b.ReportMetric(0, "ns/op") // of the turns: says nothing
		})
	}
}

// plainly is the middleware that one writes first.
func (a *admissions) plainly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := a.plain.Get(r.Header.Get("X-Key"))
		if !ok || !c.limiter.Allow() {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		writer := &statusWriter{w, http.StatusOK}
		next.ServeHTTP(writer, r)
		if writer.status < 400 {
			c.count.Add(1)
		}
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

// inTurns gives the nanoseconds that one run of each way takes, by the wall clock.
func inTurns(b *testing.B, ways map[string]func() func(int), goroutines int) map[string]float64 {
	const turn = 1000
	took := map[string][]float64{}
	running := map[string][]func(int){}
	for name, way := range ways {
		for range goroutines {
			running[name] = append(running[name], way())
		}
	}
	for b.Loop() {
		for name, each := range running {
			var all sync.WaitGroup
			began := time.Now()
			for g, do := range each {
				all.Go(func() {
					n := uint32(g)
					for range turn {
						n = n*1664525 + 1013904223
						do(int(n>>8) % 1024)
					}
				})
			}
			all.Wait()
			took[name] = append(took[name], float64(time.Since(began))/float64(turn*goroutines))
		}
	}
	judged := map[string]float64{}
	for name, all := range took {
		slices.Sort(all)
		judged[name] = all[0]
		if goroutines > 1 {
			judged[name] = all[len(all)/2]
		}
	}
	return judged
}
