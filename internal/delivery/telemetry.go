package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/inprocess/meter/sink"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const (
	scope        = "github.com/inprocess/meter"
	routeKey     = attribute.Key("meter.route")
	outcomeKey   = attribute.Key("meter.outcome")
	batchSizeKey = attribute.Key("meter.batch.size")
)

// telemetry holds the instruments of all routes. Its attributes are route,
// outcome and size: never a subject, a key or an error's text.
//
// Concurrency: safe.
type telemetry struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	attempts metric.Int64Counter
	records  metric.Int64Counter
}

func newTelemetry(cfg Config) *telemetry {
	provider := cfg.MeterProvider
	if provider == nil {
		provider = metricnoop.NewMeterProvider()
	}
	t := &telemetry{tracer: cfg.Tracer}
	if t.tracer == nil {
		t.tracer = tracenoop.NewTracerProvider().Tracer(scope)
	}
	m := provider.Meter(scope)
	var err error
	broken := func() {
		cfg.Logger.Warn("metric is off", slog.String("error", text(err)))
	}
	if t.duration, err = m.Float64Histogram("meter.delivery.duration", metric.WithUnit("s"),
		metric.WithDescription("Time a sink took to answer."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)); err != nil {
		broken()
		t.duration = metricnoop.Float64Histogram{}
	}
	if t.attempts, err = m.Int64Counter("meter.delivery.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Batches handed to a sink, by what became of them.")); err != nil {
		broken()
		t.attempts = metricnoop.Int64Counter{}
	}
	if t.records, err = m.Int64Counter("meter.delivery.records", metric.WithUnit("{record}"),
		metric.WithDescription("Records handed to a sink, by the outcome of the attempt.")); err != nil {
		broken()
		t.records = metricnoop.Int64Counter{}
	}
	return t
}

// routeTelemetry is telemetry for one route.
//
// Concurrency: safe.
type routeTelemetry struct {
	*telemetry
	name attribute.KeyValue
}

func (t *telemetry) route(name string) *routeTelemetry {
	return &routeTelemetry{t, routeKey.String(name)}
}

// begin starts the span of an attempt; end finishes and counts it.
func (t *routeTelemetry) begin(ctx context.Context, size int) (_ context.Context, end func(*verdict, time.Duration)) {
	ctx, span := t.tracer.Start(ctx, "meter.deliver",
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(t.name, batchSizeKey.Int(size)))
	return ctx, func(v *verdict, took time.Duration) {
		outcome := v.outcome()
		span.SetAttributes(outcomeKey.String(outcome))
		if v.err != nil {
			span.SetStatus(codes.Error, outcome)
		}
		both := metric.WithAttributes(t.name, outcomeKey.String(outcome))
		t.duration.Record(ctx, took.Seconds(), both)
		t.attempts.Add(ctx, 1, both)
		for o, n := range v.count {
			if n > 0 {
				t.records.Add(ctx, int64(n), metric.WithAttributes(t.name, outcomeKey.String(sink.Outcome(o).String())))
			}
		}
		span.End()
	}
}
