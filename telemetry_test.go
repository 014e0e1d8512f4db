package meter

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// recorder is a metric.MeterProvider that collects on demand.
type recorder struct {
	noop.MeterProvider
	mu        sync.Mutex
	callbacks map[*registered]bool
	flushes   []attribute.Set
	fail      string // name of the instrument that can't be made
}

type registered struct {
	noop.Registration
	r *recorder
	f metric.Callback
}

func (r *registered) Unregister() error {
	r.r.mu.Lock()
	defer r.r.mu.Unlock()
	delete(r.r.callbacks, r)
	return nil
}

func (r *recorder) Meter(string, ...metric.MeterOption) metric.Meter { return recordingMeter{r: r} }

type recordingMeter struct {
	noop.Meter
	r *recorder
}

type namedCounter struct {
	noop.Int64ObservableCounter
	name string
}

type namedLevel struct {
	noop.Int64ObservableUpDownCounter
	name string
}

func (m recordingMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	if name == m.r.fail {
		return nil, errors.New("can't make " + name)
	}
	return namedCounter{name: name}, nil
}

func (m recordingMeter) Int64ObservableUpDownCounter(name string, _ ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	if name == m.r.fail {
		return nil, errors.New("can't make " + name)
	}
	return namedLevel{name: name}, nil
}

func (m recordingMeter) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return histogram{r: m.r, name: name}, nil
}

type histogram struct {
	noop.Float64Histogram
	r    *recorder
	name string
}

func (h histogram) Record(_ context.Context, _ float64, opts ...metric.RecordOption) {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	if h.name == "meter.flush.duration" {
		h.r.flushes = append(h.r.flushes, metric.NewRecordConfig(opts).Attributes())
	}
}

func (m recordingMeter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	reg := &registered{r: m.r, f: f}
	if m.r.callbacks == nil {
		m.r.callbacks = map[*registered]bool{}
	}
	m.r.callbacks[reg] = true
	return reg, nil
}

type observations struct {
	noop.Observer
	values map[string]map[attribute.Set]int64
}

func (o observations) ObserveInt64(i metric.Int64Observable, v int64, opts ...metric.ObserveOption) {
	var name string
	switch i := i.(type) {
	case namedCounter:
		name = i.name
	case namedLevel:
		name = i.name
	}
	if o.values[name] == nil {
		o.values[name] = map[attribute.Set]int64{}
	}
	o.values[name][metric.NewObserveConfig(opts).Attributes()] = v
}

func (r *recorder) collect(t *testing.T) map[string]map[attribute.Set]int64 {
	o := observations{values: map[string]map[attribute.Set]int64{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.callbacks {
		require.NoError(t, c.f(t.Context(), o))
	}
	return o.values
}

func TestTelemetryShowsTheBooks(t *testing.T) {
	t.Parallel()
	provider := &recorder{}
	m := open(t, func(c *Config) { c.MeterProvider = provider })
	f := m.Feature("f")
	require.NoError(t, f.Add(t.Context(), "cus_1", 3))
	require.NoError(t, m.Flush(t.Context()))
	require.NoError(t, f.Add(t.Context(), "cus_2", 4))

	labels := attribute.NewSet(attribute.String("meter.feature", "f"), attribute.String("meter.route", "memory"))
	want := map[string]map[attribute.Set]int64{}
	for name, n := range map[string]int64{
		"meter.accepted": 7, "meter.delivered": 3, "meter.pending": 4, "meter.in_doubt": 0,
		"meter.rejected": 0, "meter.voided": 0, "meter.superseded": 0, "meter.damaged": 0,
	} {
		want[name] = map[attribute.Set]int64{labels: n}
	}
	require.Equal(t, want, provider.collect(t))
	require.Equal(t, []attribute.Set{attribute.NewSet(attribute.Bool("meter.complete", true))}, provider.flushes)

	require.NoError(t, m.Shutdown(t.Context()))
	require.Empty(t, provider.callbacks, "unregistered")
}

func TestOpenFailsWithItsInstruments(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"meter.accepted", "meter.damaged"} {
		dir := t.TempDir()
		_, err := Open(Config{Dir: dir, MeterProvider: &recorder{fail: name}})
		require.ErrorContains(t, err, name)
		m, err := Open(Config{Dir: dir, LockWait: NoWait})
		require.NoError(t, err, "the directory is free again")
		require.NoError(t, m.Shutdown(t.Context()))
	}
}

type tracers struct {
	tracenoop.TracerProvider
	named []string
}

func (p *tracers) Tracer(name string, _ ...trace.TracerOption) trace.Tracer {
	p.named = append(p.named, name)
	return p.TracerProvider.Tracer(name)
}

func TestDeliveriesGetTheTracer(t *testing.T) {
	t.Parallel()
	provider := &tracers{}
	m := open(t, func(c *Config) { c.TracerProvider = provider })
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
	require.EqualValues(t, 1, m.billed(t, "f", "s"))
	require.Equal(t, []string{scope}, provider.named)
}
