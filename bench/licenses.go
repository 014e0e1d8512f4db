package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

// verdicts look a license up that is there: every caller of an API pays for it.
var verdicts = []struct {
	name  string
	class class
	open  counterOf
}{
	{"meter: cache.Check", ours, meterCheck},
	{"limit: frozen map", limit, frozenVerdicts},
	{"peer: sync.Map", peer, syncVerdicts},
	{"peer: otter, with TTL", peer, otterVerdicts},
	{"peer: golang-lru", peer, lruVerdicts},
	{"peer: golang-lru expirable", peer, expirableVerdicts},
}

func licenseTables() []table {
	hit := table{name: "license check", what: "a hit of the cache, uniform traffic; a verdict ends, and what is not used goes first", unit: "ns"}
	for _, n := range []int{1000, 100_000} {
		for _, g := range goroutines {
			tr := uniform(n)
			h := heat{columns: []string{count(n) + ", " + plural(g, "goroutine")}, series: n}
			for _, v := range verdicts {
				h.contenders = append(h.contenders, contender{v.name, v.class, func(s *stage) turn {
					return s.counting(tr, g, v.open(s, customers(n)))
				}})
			}
			hit.heats = append(hit.heats, h)
		}
	}
	return []table{hit, rateTable()}
}

func rateTable() table {
	t := table{name: "rate limit", what: "a call that is let through, 1,000 customers, zipf", unit: "ns"}
	for _, g := range goroutines {
		tr := zipf(1000)
		t.heats = append(t.heats, heat{columns: []string{plural(g, "goroutine")}, contenders: []contender{
			{"meter: what Rate adds to Begin and Commit", ours, func(s *stage) turn {
				m, names := s.meter(meter.Config{}), customers(tr.n)
				calls := func(name string, opts ...meter.FeatureOption) func(uint32) {
					f, ctxs := m.Feature(name, opts...), make([]context.Context, len(names))
					for i, name := range names {
						ctxs[i] = meter.WithCaller(context.Background(), meter.Caller{Subject: name})
					}
					return func(i uint32) {
						_, call, err := f.Begin(ctxs[i])
						must(err)
						must(call.Commit())
					}
				}
				with, without := s.counting(tr, g, calls("limited", meter.Rate(endless, endless))), s.counting(tr, g, calls("free"))
				return func() []float64 { return []float64{with()[0] - without()[0]} }
			}},
			{"peer: golang-lru, x/time/rate", peer, func(s *stage) turn {
				names, limiters := customers(tr.n), got(lru.New[string, *rate.Limiter](2*tr.n))
				for _, name := range names {
					limiters.Add(name, rate.NewLimiter(endless, endless))
				}
				return s.counting(tr, g, func(i uint32) {
					if l, ok := limiters.Get(names[i]); !ok || !l.Allow() {
						panic("refused")
					}
				})
			}},
			{"peer: sync.Map, x/time/rate", peer, func(s *stage) turn {
				names := customers(tr.n)
				var limiters sync.Map
				for _, name := range names {
					limiters.Store(name, rate.NewLimiter(endless, endless))
				}
				return s.counting(tr, g, func(i uint32) {
					if l, ok := limiters.Load(names[i]); !ok || !l.(*rate.Limiter).Allow() {
						panic("refused")
					}
				})
			}},
		}})
	}
	return t
}

func meterCheck(s *stage, names []string) func(uint32) {
	licenses, ctx := s.licenses(2*len(names)), context.Background()
	s.defers(func() { must(licenses.Close()) })
	queries := make([]license.Query, len(names))
	for i, name := range names {
		queries[i] = license.Query{Key: license.NewKey(name), Feature: feature}
	}
	return func(i uint32) {
		if v, err := licenses.Check(ctx, queries[i]); err != nil || v.Status != license.Allowed {
			panic("refused")
		}
	}
}

func granted() *license.Verdict {
	return &license.Verdict{Status: license.Allowed, Until: time.Now().Add(time.Hour)}
}

func need(v *license.Verdict, ok bool) {
	if !ok || v.Status != license.Allowed {
		panic("refused")
	}
}

func frozenVerdicts(_ *stage, names []string) func(uint32) {
	all := map[string]*license.Verdict{}
	for _, i := range rand.Perm(len(names)) {
		all[strings.Clone(names[i])] = granted()
	}
	return func(i uint32) {
		v, ok := all[names[i]]
		need(v, ok)
	}
}

func syncVerdicts(_ *stage, names []string) func(uint32) {
	var all sync.Map
	for _, name := range names {
		all.Store(strings.Clone(name), granted())
	}
	return func(i uint32) {
		v, ok := all.Load(names[i])
		need(v.(*license.Verdict), ok)
	}
}

func otterVerdicts(s *stage, names []string) func(uint32) {
	all := otter.Must(&otter.Options[string, *license.Verdict]{
		MaximumSize: 2 * len(names), ExpiryCalculator: otter.ExpiryWriting[string, *license.Verdict](time.Hour),
	})
	s.defers(func() { all.StopAllGoroutines() })
	for _, name := range names {
		all.Set(strings.Clone(name), granted())
	}
	return func(i uint32) {
		v, ok := all.GetIfPresent(names[i])
		need(v, ok)
	}
}

func lruVerdicts(_ *stage, names []string) func(uint32) {
	all := got(lru.New[string, *license.Verdict](2 * len(names)))
	for _, name := range names {
		all.Add(strings.Clone(name), granted())
	}
	return func(i uint32) {
		v, ok := all.Get(names[i])
		need(v, ok)
	}
}

func expirableVerdicts(_ *stage, names []string) func(uint32) {
	all := expirable.NewLRU[string, *license.Verdict](2*len(names), nil, time.Hour)
	for _, name := range names {
		all.Add(strings.Clone(name), granted())
	}
	return func(i uint32) {
		v, ok := all.Get(names[i])
		need(v, ok)
	}
}
