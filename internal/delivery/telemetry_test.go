package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestTelemetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		spans := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(ctx context.Context, call int, _ []sink.Record) error {
			if !trace.SpanFromContext(ctx).SpanContext().IsValid() {
				t.Error("the sink's own spans have no parent")
			}
			time.Sleep(2 * time.Second)
			switch call {
			case 1:
				return errors.New("customer secret-subject: connection reset")
			case 2:
				return &sink.BatchError{Errs: []error{errors.New("secret-subject")}}
			case 3:
				return sink.ErrRejected
			}
			return nil
		})
		l.add("f", "secret-subject")
		d := Start(Config{
			Ledger: l, Routes: to(s), Tracer: tracer,
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		})
		defer func() { require.NoError(t, d.Stop(context.Background())) }()
		time.Sleep(time.Minute)
		l.addMany(3)
		time.Sleep(time.Minute)

		var got metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &got))
		counts := map[string]int64{}
		require.Len(t, got.ScopeMetrics, 1)
		for _, m := range got.ScopeMetrics[0].Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					counts[m.Name+" "+labels(p.Attributes)] = p.Value
				}
			case metricdata.Histogram[float64]:
				require.Equal(t, "s", m.Unit)
				for _, p := range data.DataPoints {
					counts[m.Name+" "+labels(p.Attributes)] = int64(p.Sum)
				}
			}
		}
		require.Equal(t, map[string]int64{
			"meter.delivery.attempts meter.outcome=in doubt,meter.route=a":  2,
			"meter.delivery.attempts meter.outcome=rejected,meter.route=a":  1,
			"meter.delivery.attempts meter.outcome=delivered,meter.route=a": 2,
			"meter.delivery.records meter.outcome=in doubt,meter.route=a":   2,
			"meter.delivery.records meter.outcome=rejected,meter.route=a":   1,
			"meter.delivery.records meter.outcome=delivered,meter.route=a":  3,
			"meter.delivery.duration meter.outcome=in doubt,meter.route=a":  4,
			"meter.delivery.duration meter.outcome=rejected,meter.route=a":  2,
			"meter.delivery.duration meter.outcome=delivered,meter.route=a": 4,
		}, counts)

		require.Len(t, spans.Ended(), 5)
		for _, span := range spans.Ended() {
			require.Equal(t, "meter.deliver", span.Name())
			require.Empty(t, span.Events())
			require.NotContains(t, fmt.Sprint(span.Attributes(), span.Status()), "secret-subject")
		}
		first := spans.Ended()[0]
		require.Equal(t, codes.Error, first.Status().Code)
		require.Equal(t, "meter.batch.size=1,meter.outcome=in doubt,meter.route=a", labels(attribute.NewSet(first.Attributes()...)))
		require.Equal(t, codes.Unset, spans.Ended()[4].Status().Code)
	})
}

func labels(set attribute.Set) string {
	var parts []string
	for _, kv := range set.ToSlice() {
		parts = append(parts, fmt.Sprintf("%s=%s", kv.Key, kv.Value.String()))
	}
	return strings.Join(parts, ",")
}

// A route logs when it changes, not at every try.
func TestLogsChangesOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			switch {
			case call <= 20:
				return sink.ErrNotApplied
			case call <= 23:
				return sink.ErrRejected
			}
			return nil
		})
		s.limits.MaxBatch = 1
		l.addMany(10)
		log, out := logger()
		begin(t, l, log, s)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, 7, l.ended(0, sink.Delivered))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		require.Len(t, lines, 3, out)
		require.Contains(t, lines[0], `level=WARN msg="delivery fails" route=a error="sink: not applied"`)
		require.Contains(t, lines[1], `level=INFO msg="delivery works again" route=a failures=20 after=`)
		require.Contains(t, lines[2], `level=WARN msg="sink rejects records" route=a records=1 error="sink: rejected"`)
	})
}
