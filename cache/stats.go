package cache

import (
	"context"
	"sync/atomic"
	"unsafe"

	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/inprocess/meter/cache"

// stats counts what became of checks. They have no labels: keys and
// subjects are nobody's business.
type stats struct {
	hits                                      *tally // nil: nobody reads it
	denials, misses, refreshes, calls, errors atomic.Int64
}

// tally is a counter that the processors share without waiting for each other.
type tally [64]struct {
	n atomic.Int64
	_ [56]byte // a cache line each
}

// add chooses a cell by where the goroutine's stack is: each has its own.
func (t *tally) add() {
	if t == nil {
		return
	}
	var here byte
	t[uintptr(unsafe.Pointer(&here))>>13%uintptr(len(t))].n.Add(1)
}

func (t *tally) sum() (n int64) {
	for i := range t {
		n += t[i].n.Load()
	}
	return n
}

// publish shows the statistics to OpenTelemetry: the instruments are observed when a
// reader collects.
func (c *Cache) publish(provider metric.MeterProvider) (stop func(), err error) {
	c.stats.hits = new(tally)
	in := instruments{meter: provider.Meter(scope)}
	in.counter("meter.cache.hits", "Checks allowed from memory.", c.stats.hits.sum)
	in.counter("meter.cache.denials", "Checks denied from memory.", c.stats.denials.Load)
	in.counter("meter.cache.misses", "Checks that memory could not answer.", c.stats.misses.Load)
	in.counter("meter.cache.refreshes", "Calls to the Checker that nobody had to wait for.", c.stats.refreshes.Load)
	in.counter("meter.cache.calls", "Calls to the Checker.", c.stats.calls.Load)
	in.counter("meter.cache.errors", "Calls to the Checker that brought no answer.", c.stats.errors.Load)
	in.level("meter.cache.entries", "Customers' verdicts in memory.", func() int64 { return int64(c.allowed.Len()) })
	in.level("meter.cache.denied", "Denials in memory.", func() int64 { return int64(c.denied.Len()) })
	in.level("meter.cache.paused", "1 while the Checker is not asked because its calls have failed.", c.paused)
	if in.err != nil {
		return nil, in.err
	}
	registration, err := in.meter.RegisterCallback(in.observe, in.observables...)
	if err != nil {
		return nil, err
	}
	return func() { _ = registration.Unregister() }, nil
}

type instruments struct {
	meter       metric.Meter
	observables []metric.Observable
	values      []value
	err         error // the first
}

type value struct {
	instrument metric.Int64Observable
	of         func() int64
}

func (in *instruments) counter(name, description string, of func() int64) {
	i, err := in.meter.Int64ObservableCounter(name, metric.WithDescription(description))
	in.add(i, err, of)
}

func (in *instruments) level(name, description string, of func() int64) {
	i, err := in.meter.Int64ObservableUpDownCounter(name, metric.WithDescription(description))
	in.add(i, err, of)
}

func (in *instruments) add(i metric.Int64Observable, err error, of func() int64) {
	if err != nil {
		if in.err == nil {
			in.err = err
		}
		return
	}
	in.observables = append(in.observables, i)
	in.values = append(in.values, value{i, of})
}

func (in *instruments) observe(_ context.Context, o metric.Observer) error {
	for _, v := range in.values {
		o.ObserveInt64(v.instrument, v.of())
	}
	return nil
}
