package meter

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// telemetry shows the books to OpenTelemetry. The counting path costs nothing: the
// instruments are observed when a reader collects. Subjects are never labels, for
// there may be millions of them. A nil telemetry does nothing.
type telemetry struct {
	registration metric.Registration
	flushes      metric.Float64Histogram
}

func newTelemetry(m *Meter) (*telemetry, error) {
	if m.cfg.MeterProvider == nil {
		return nil, nil
	}
	in := instruments{meter: m.cfg.MeterProvider.Meter(scope)}
	// Operators move units between the other terms, so only these two never fall.
	in.counter("meter.accepted", "Units counted.", func(l Line) int64 { return l.Accepted })
	in.counter("meter.delivered", "Units recorded by the biller.", func(l Line) int64 { return l.Delivered })
	in.level("meter.pending", "Units to be sent.", func(l Line) int64 { return l.Pending })
	in.level("meter.in_doubt", "Units sent, and nobody knows whether they were recorded.", func(l Line) int64 { return l.InDoubt })
	in.level("meter.rejected", "Units refused by the biller for good.", func(l Line) int64 { return l.Rejected })
	in.level("meter.voided", "Units written off by an operator.", func(l Line) int64 { return l.Voided })
	in.level("meter.superseded", "Levels made obsolete by newer ones.", func(l Line) int64 { return l.Superseded })
	in.level("meter.damaged", "Units lost by a disk.", func(l Line) int64 { return l.Damaged })
	in.decisions()
	in.events()
	t := &telemetry{}
	if in.err == nil {
		t.flushes, in.err = in.meter.Float64Histogram("meter.flush.duration",
			metric.WithUnit("s"), metric.WithDescription("Time that Flush took."))
	}
	if in.err == nil {
		t.registration, in.err = in.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			in.observe(o, m.Books())
			in.decisionMetrics.observe(o, m.cfg.Shadow, m.declaredFeatures())
			in.observeDuplicates(o, m.declaredFeatures())
			return nil
		}, in.observables...)
	}
	if in.err != nil {
		return nil, in.err
	}
	return t, nil
}

// flushed records one Flush.
func (t *telemetry) flushed(ctx context.Context, took time.Duration, err error) {
	if t == nil {
		return
	}
	t.flushes.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.Bool("meter.complete", err == nil)))
}

// stop unregisters the callback: a closed ledger has no books.
func (t *telemetry) stop() {
	if t == nil {
		return
	}
	_ = t.registration.Unregister() // an SDK that keeps it collects what Books still knows
}

type instruments struct {
	decisionMetrics
	duplicates  metric.Int64ObservableCounter
	meter       metric.Meter
	observables []metric.Observable
	terms       []term
	err         error // the first
}

type term struct {
	instrument metric.Int64Observable
	of         func(Line) int64
}

func (in *instruments) counter(name, description string, of func(Line) int64) {
	if in.err != nil {
		return
	}
	var i metric.Int64ObservableCounter
	i, in.err = in.meter.Int64ObservableCounter(name, metric.WithDescription(description))
	in.add(i, of)
}

func (in *instruments) level(name, description string, of func(Line) int64) {
	if in.err != nil {
		return
	}
	var i metric.Int64ObservableUpDownCounter
	i, in.err = in.meter.Int64ObservableUpDownCounter(name, metric.WithDescription(description))
	in.add(i, of)
}

func (in *instruments) add(i metric.Int64Observable, of func(Line) int64) {
	in.observables = append(in.observables, i)
	in.terms = append(in.terms, term{i, of})
}

func (in *instruments) observe(o metric.Observer, books Books) {
	for _, line := range books {
		labels := metric.WithAttributeSet(attribute.NewSet(
			attribute.String("meter.feature", line.Feature), attribute.String("meter.route", line.Route)))
		for _, t := range in.terms {
			o.ObserveInt64(t.instrument, t.of(line), labels)
		}
	}
}
