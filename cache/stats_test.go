package cache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// reader is a MeterProvider that collects when it is asked.
type reader struct {
	noop.MeterProvider
	once     sync.Once
	reader   *sdk.ManualReader
	provider *sdk.MeterProvider
}

func (r *reader) Meter(name string, o ...metric.MeterOption) metric.Meter {
	r.once.Do(func() {
		r.reader = sdk.NewManualReader()
		r.provider = sdk.NewMeterProvider(sdk.WithReader(r.reader))
	})
	return r.provider.Meter(name, o...)
}

// collect returns the values by name, and fails if one has a label.
func (r *reader) collect(t *testing.T) map[string]int64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, r.reader.Collect(t.Context(), &all))
	values := map[string]int64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				require.Zero(t, point.Attributes.Len(), m.Name)
				values[m.Name] = point.Value
			}
		}
	}
	return values
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	r := &reader{}
	bubble(t, Config{MeterProvider: r}, func(w world) {
		w.answer("k", license.Allowed) // a miss
		for range 100 {
			w.allowed("k")
		}
		time.Sleep(time.Hour)
		w.allowed("k") // and a refresh
		w.settle()
		w.server.set(deny(license.NotFound), nil)
		for range 3 {
			w.answer("bad", license.Denied)
		}
		w.server.set(license.Verdict{}, errDown)
		for range 7 {
			w.unknown("cold")
		}
		require.Equal(w, map[string]int64{
			"meter.cache.hits":      101,
			"meter.cache.denials":   2,
			"meter.cache.misses":    9,
			"meter.cache.refreshes": 1,
			"meter.cache.calls":     8,
			"meter.cache.errors":    5,
			"meter.cache.entries":   1,
			"meter.cache.denied":    1,
			"meter.cache.paused":    1,
		}, r.collect(w.T))
		require.NoError(w, w.Close())
		require.Empty(w, r.collect(w.T), "a closed cache is not observed")
	})
}

func TestHitsAreCountedExactly(t *testing.T) {
	t.Parallel()
	r := &reader{}
	c := New(Config{Checker: answers(allow("cus_1"), nil), MeterProvider: r})
	_, err := c.Check(t.Context(), ask("k"))
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 1000 {
				_, _ = c.Check(context.Background(), ask("k"))
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 16_000, r.collect(t)["meter.cache.hits"])
	require.NoError(t, c.Close())
}

type noCounters struct{ noop.MeterProvider }

func (noCounters) Meter(string, ...metric.MeterOption) metric.Meter { return noCounterMeter{} }

type noCounterMeter struct{ noop.Meter }

func (noCounterMeter) Int64ObservableCounter(string, ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, errors.New("out of counters")
}

func TestBrokenMetricsAreAFault(t *testing.T) {
	t.Parallel()
	c := New(Config{Checker: answers(allow("cus_1"), nil), MeterProvider: noCounters{}})
	require.EqualError(t, c.Validate(), "cache: Config.MeterProvider: out of counters")
	require.NoError(t, c.Close())
}
