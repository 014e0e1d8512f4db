package meter

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/license"
)

// places are where the benchmarks count.
func places(b *testing.B, run func(b *testing.B, m bench)) {
	b.Run("dir=memory", func(b *testing.B) { run(b, open(b)) })
	b.Run("dir=disk", func(b *testing.B) {
		dir := b.TempDir()
		run(b, open(b, func(c *Config) { c.Dir = dir }))
	})
}

// BenchmarkCounter compares a handle with the cheapest counter there is.
func BenchmarkCounter(b *testing.B) {
	b.Run("bare atomic", func(b *testing.B) {
		b.ReportAllocs()
		var n int64
		for b.Loop() {
			atomic.AddInt64(&n, 1)
		}
	})
	b.Run("bare atomic, parallel", func(b *testing.B) {
		b.ReportAllocs()
		var n int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				atomic.AddInt64(&n, 1)
			}
		})
	})
	places(b, func(b *testing.B, m bench) {
		counter, ctx := m.Feature("f").Counter("s"), context.Background()
		b.Run("Counter.Add", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if counter.Add(ctx, 1) != nil {
					b.Fatal("not counted")
				}
			}
		})
		b.Run("Counter.Add, parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_ = counter.Add(ctx, 1)
				}
			})
		})
	})
}

// BenchmarkAdd compares counting by name with a map of counters, each over as many
// customers as stand behind live=.
func BenchmarkAdd(b *testing.B) {
	for _, live := range []int{1000, 100_000} {
		subjects := make([]string, live)
		for i := range subjects {
			subjects[i] = fmt.Sprintf("cus_%08d", i)
		}
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			b.Run("sync.Map", func(b *testing.B) {
				var all sync.Map
				for _, s := range subjects {
					all.Store(strings.Clone(s), new(atomic.Int64)) // a request brings a string of its own
				}
				each(b, subjects, func(s string) {
					n, _ := all.Load(s)
					n.(*atomic.Int64).Add(1)
				})
			})
			places(b, func(b *testing.B, m bench) {
				f, ctx := m.Feature("f"), context.Background()
				for _, s := range subjects {
					if err := f.Add(ctx, s, 1); err != nil {
						b.Fatal(err)
					}
				}
				b.Run("Feature.Add", func(b *testing.B) { each(b, subjects, func(s string) { _ = f.Add(ctx, s, 1) }) })
			})
		})
	}
}

// each runs count over subjects in an order that caches can't guess.
func each(b *testing.B, subjects []string, count func(string)) {
	b.ReportAllocs()
	i := uint32(1)
	for b.Loop() {
		i = i*1664525 + 1013904223
		count(subjects[int(i>>8)%len(subjects)])
	}
}

func BenchmarkCall(b *testing.B) {
	places(b, func(b *testing.B, m bench) {
		f, ctx := m.Feature("f"), as("s")
		b.Run("Begin, Commit", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, call, _ := f.Begin(ctx)
				_ = call.Commit()
			}
		})
		wrapped := Wrap(f, func(context.Context, int) (int, error) { return 0, nil })
		b.Run("Wrap", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = wrapped(ctx, 1)
			}
		})
	})
}

// BenchmarkMiddleware measures what is added to a request, over a writer that does
// nothing.
func BenchmarkMiddleware(b *testing.B) {
	body := []byte(`{"ok":true}`)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body)
	})
	serve := func(b *testing.B, h http.Handler) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Key", "good")
		b.Run("serial", func(b *testing.B) {
			b.ReportAllocs()
			w := &discard{header: http.Header{}}
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
		b.Run("parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w := &discard{header: http.Header{}}
				for pb.Next() {
					h.ServeHTTP(w, r)
				}
			})
		})
	}
	b.Run("bare handler", func(b *testing.B) { serve(b, handler) })
	b.Run("with context", func(b *testing.B) {
		type key struct{}
		serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler(w, r.WithContext(context.WithValue(r.Context(), key{}, "good")))
		}))
	})
	places(b, func(b *testing.B, m bench) {
		known := Identify(func(*http.Request) (Caller, error) { return Caller{Subject: "s"}, nil })
		b.Run("subject known", func(b *testing.B) { serve(b, Middleware(m.Feature("f"), known)(handler)) })
	})
	key := license.NewKey("good")
	verdict := license.Verdict{Status: license.Allowed, Subject: "s"}
	checked := open(b, func(c *Config) {
		c.Checker = license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			if q.Key != key {
				return license.Verdict{}, nil
			}
			return verdict, nil
		})
	})
	b.Run("key, checker", func(b *testing.B) { serve(b, Middleware(checked.Feature("f"), KeyHeader("X-Key"))(handler)) })
	b.Run("key, checker, rate", func(b *testing.B) {
		serve(b, Middleware(checked.Feature("g", Rate(1e12, 1e9)), KeyHeader("X-Key"))(handler))
	})
}
