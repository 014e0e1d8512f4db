package meter

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

func BenchmarkParts(b *testing.B) {
	keys := make([]license.Key, 1024)
	names := make([]string, 1024)
	m := open(b)
	c := cache.New(cache.Config{Rate: 1e9, Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		return allowed("cus_" + q.Key.Reveal()), nil
	})})
	m.cfg.Checker = c
	f := m.Feature("f", Rate(1e6, 1e6))
	g := m.Feature("g")
	bare, _ := lru.New[string, *customer](1024)
	ctx := b.Context()
	for i := range keys {
		names[i] = fmt.Sprintf("KEYKE-YKEYK-%05d", i)
		keys[i] = license.NewKey(names[i])
		bare.Add(names[i], &customer{limiter: rate.NewLimiter(1e6, 1e6)})
		_, err := c.Check(ctx, license.Query{Key: keys[i], Feature: "f"})
		require.NoError(b, err)
		_, err = c.Check(ctx, license.Query{Key: keys[i], Feature: "g"})
		require.NoError(b, err)
	}
	run := func(name string, do func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := uint32(1)
			for b.Loop() {
				n = n*1664525 + 1013904223
				do(int(n>>8) % 1024)
			}
		})
	}
	run("time.Now", func(int) { time.Now() })
	start := time.Now()
	run("time.Since", func(int) { _ = start.Add(time.Since(start)) })
	run("NewKey", func(i int) { license.NewKey(names[i]) })
	run("cache", func(i int) { c.Check(ctx, license.Query{Key: keys[i], Feature: "f"}) })
	run("lru", func(i int) { bare.Get(names[i]) })
	run("limiter", func(i int) { f.calls.limiter.account(names[i]).tokens.AllowN(start, 1) })
	run("Add", func(i int) { f.Add(ctx, names[i], 1) })
	x := &callContext{}
	run("admit", func(i int) { x.call = Call{}; f.admit(&x.call, ctx, &f.calls, Caller{Key: keys[i]}, nil) })
	run("admit, no rate", func(i int) { x.call = Call{}; g.admit(&x.call, ctx, &g.calls, Caller{Key: keys[i]}, nil) })
	run("admit,settle", func(i int) {
		x.call = Call{}
		f.admit(&x.call, ctx, &f.calls, Caller{Key: keys[i]}, nil)
		x.call.settle()
	})
	run("plain", func(i int) {
		if p, ok := bare.Get(names[i]); ok && p.limiter.Allow() {
			p.count.Add(1)
		}
	})
	_ = http.StatusOK
}

type customer struct {
	limiter *rate.Limiter
	count   atomic.Int64
}
