package main

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/puzpuzpuz/xsync/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/inprocess/meter"
)

// counterOf opens a way to count one use by a customer, who is given by number.
type counterOf func(s *stage, names []string) (op func(i uint32))

const feature = "tax-report"

func (s *stage) meter(cfg meter.Config) *meter.Meter {
	if cfg.Dir == "" {
		cfg.Dir = s.dir
	}
	if cfg.Window == 0 { // the first use in a window has a table of its own
		cfg.Window = meter.OnFlush
	}
	m := got(meter.Open(cfg))
	s.defers(func() { must(m.Shutdown(context.Background())) })
	return m
}

// by a handle that was found before.
var byHandle = []struct {
	name  string
	class class
	open  counterOf
}{
	{"meter: Counter.Add", ours, meterHandle(meter.Config{})},
	{"meter: in memory", ours, meterHandle(meter.Config{Dir: meter.InMemory})},
	{"limit: atomic add in an array", limit, atomics},
	{"limit: compare-and-swap, guarded", limit, guardedSwaps},
	{"peer: prometheus counter", peer, promHandle},
	{"peer: VictoriaMetrics counter", peer, vmHandle},
}

// by the customer's name.
var byName = []struct {
	name  string
	class class
	open  counterOf
}{
	{"meter: Feature.Add", ours, meterName(meter.Config{})},
	{"meter: in memory", ours, meterName(meter.Config{Dir: meter.InMemory})},
	{"limit: frozen map, atomic add", limit, frozenMap},
	{"peer: xsync.Map, atomic add", peer, xsyncMap},
	{"peer: sync.Map, atomic add", peer, syncMap},
	{"peer: map, RWMutex", peer, lockedMap},
	{"peer: prometheus WithLabelValues", peer, promLabels},
	{"peer: VictoriaMetrics GetOrCreate", peer, vmName},
	{"peer: otel, cached Set", peer, otelSet},
	{"peer: otel WithAttributes", peer, otelAttributes},
}

var goroutines = []int{1, 2, 64}

func countingTables() (all []table) {
	for _, g := range goroutines {
		by := func(name, what string, ways []struct {
			name  string
			class class
			open  counterOf
		}) table {
			t := table{name: name + ", " + plural(g, "goroutine"), what: what, unit: "ns"}
			for _, who := range []func() traffic{
				oneCustomer,
				func() traffic { return zipf(1000) }, func() traffic { return uniform(1000) },
				func() traffic { return zipf(100_000) }, func() traffic { return uniform(100_000) },
				func() traffic { return zipf(1_000_000) }, func() traffic { return uniform(1_000_000) },
			} {
				tr := who()
				h := heat{columns: []string{tr.name}, series: tr.n}
				for _, w := range ways {
					h.contenders = append(h.contenders, contender{w.name, w.class, func(s *stage) turn {
						return s.counting(tr, g, w.open(s, customers(tr.n)))
					}})
				}
				t.heats = append(t.heats, h)
			}
			return t
		}
		all = append(all,
			by("count by handle", "one use, by a handle kept for the customer; columns are customers", byHandle),
			by("count by name", "one use by the customer whose name came with the request; columns are customers", byName))
	}
	return append(all, firstTable())
}

// firstTable counts each customer once in a window: its series gets a place there.
func firstTable() table {
	t := table{name: "first use in a window", what: "one use by a customer who has not called since the window began; columns are customers", unit: "ns"}
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		h := heat{columns: []string{count(n)}, series: n}
		for _, way := range []struct{ name, dir string }{{"meter: Feature.Add", ""}, {"meter: in memory", meter.InMemory}} {
			h.contenders = append(h.contenders, contender{way.name, ours, func(s *stage) turn {
				m := s.meter(meter.Config{Dir: way.dir, MaxDisk: 16 << 30})
				f, names, ctx := m.Feature(feature), customers(n), context.Background()
				return func() []float64 {
					must(m.Flush(ctx))
					return []float64{timed(func() {
						for _, name := range names {
							must(f.Add(ctx, name, 1))
						}
					}) / float64(n)}
				}
			}})
		}
		t.heats = append(t.heats, h)
	}
	return t
}

func plural(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return strconv.Itoa(n) + " " + of
}

func meterHandle(cfg meter.Config) counterOf {
	return func(s *stage, names []string) func(uint32) {
		f, ctx := s.meter(cfg).Feature(feature), context.Background()
		counters := make([]*meter.Counter, len(names))
		for i, name := range names {
			counters[i] = f.Counter(name)
		}
		return func(i uint32) { must(counters[i].Add(ctx, 1)) }
	}
}

func meterName(cfg meter.Config) counterOf {
	return func(s *stage, names []string) func(uint32) {
		f, ctx := s.meter(cfg).Feature(feature), context.Background()
		return func(i uint32) { must(f.Add(ctx, names[i], 1)) }
	}
}

func atomics(_ *stage, names []string) func(uint32) {
	counters := make([]atomic.Int64, len(names))
	return func(i uint32) { counters[i].Add(1) }
}

// guardedSwaps do what counting in a mapped file takes at least: a count must not get
// lost when its cell is sealed, so it is a compare-and-swap, nor end the process when the
// file's memory goes away, so it is under a fault guard.
func guardedSwaps(_ *stage, names []string) func(uint32) {
	counters := make([]atomic.Uint64, len(names))
	return func(i uint32) {
		for !guardedSwap(&counters[i]) {
		}
	}
}

func frozenMap(_ *stage, names []string) func(uint32) {
	counters := map[string]*atomic.Int64{}
	for _, name := range names {
		counters[strings.Clone(name)] = new(atomic.Int64) // a request brings a string of its own
	}
	return func(i uint32) { counters[names[i]].Add(1) }
}

func xsyncMap(_ *stage, names []string) func(uint32) {
	counters := xsync.NewMap[string, *atomic.Int64]()
	for _, name := range names {
		counters.Store(strings.Clone(name), new(atomic.Int64))
	}
	return func(i uint32) {
		n, _ := counters.Load(names[i])
		n.Add(1)
	}
}

func syncMap(_ *stage, names []string) func(uint32) {
	var counters sync.Map
	for _, name := range names {
		counters.Store(strings.Clone(name), new(atomic.Int64))
	}
	return func(i uint32) {
		n, _ := counters.Load(names[i])
		n.(*atomic.Int64).Add(1)
	}
}

func lockedMap(_ *stage, names []string) func(uint32) {
	var mu sync.RWMutex
	counters := map[string]*atomic.Int64{}
	for _, name := range names {
		counters[strings.Clone(name)] = new(atomic.Int64)
	}
	return func(i uint32) {
		mu.RLock()
		n := counters[names[i]]
		mu.RUnlock()
		n.Add(1)
	}
}

func promVector() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "uses"}, []string{"feature", "customer"})
}

func promHandle(_ *stage, names []string) func(uint32) {
	v, counters := promVector(), make([]prometheus.Counter, len(names))
	for i, name := range names {
		counters[i] = v.WithLabelValues(feature, name)
	}
	return func(i uint32) { counters[i].Inc() }
}

func promLabels(_ *stage, names []string) func(uint32) {
	v := promVector()
	return func(i uint32) { v.WithLabelValues(feature, names[i]).Inc() }
}

func vmSeries(name string) string { return `uses{feature="` + feature + `",customer="` + name + `"}` }

func vmHandle(_ *stage, names []string) func(uint32) {
	set, counters := vm.NewSet(), make([]*vm.Counter, len(names))
	for i, name := range names {
		counters[i] = set.NewCounter(vmSeries(name))
	}
	return func(i uint32) { counters[i].Inc() }
}

// vmName is spared writing the series' name, which a request would have to.
func vmName(_ *stage, names []string) func(uint32) {
	set, series := vm.NewSet(), make([]string, len(names))
	for i, name := range names {
		series[i] = vmSeries(name)
	}
	return func(i uint32) { set.GetOrCreateCounter(series[i]).Inc() }
}

// otelCounter has no limit of series: by default all beyond 2,000 are counted as one,
// without a customer.
func otelCounter(s *stage) metric.Int64Counter {
	p := sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader()), sdk.WithCardinalityLimit(-1))
	s.defers(func() { must(p.Shutdown(context.Background())) })
	return got(p.Meter("bench").Int64Counter("uses"))
}

func otelSet(s *stage, names []string) func(uint32) {
	counter, ctx := otelCounter(s), context.Background()
	options := make([][]metric.AddOption, len(names))
	for i, name := range names {
		options[i] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("feature", feature), attribute.String("customer", name)))}
	}
	return func(i uint32) { counter.Add(ctx, 1, options[i]...) }
}

func otelAttributes(s *stage, names []string) func(uint32) {
	counter, ctx := otelCounter(s), context.Background()
	return func(i uint32) {
		counter.Add(ctx, 1, metric.WithAttributes(attribute.String("feature", feature), attribute.String("customer", names[i])))
	}
}
