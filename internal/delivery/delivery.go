// Package delivery moves records from the ledger to the sinks: one set of
// workers per route, so that no sink can hurt another.
package delivery

import (
	"context"
	"log/slog"

	"github.com/inprocess/meter/sink"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config of a delivery. Validated by the caller (package meter).
type Config struct {
	Ledger        Ledger
	Routes        []Route               // in the ledger's order
	Features      func() []sink.Feature // every feature declared so far
	Logger        *slog.Logger
	MeterProvider metric.MeterProvider // nil: no metrics
	Tracer        trace.Tracer         // nil: no spans
}

// Route is a sink with its limits, defaults filled in by LimitsOf.
type Route struct {
	Name   string
	Sink   sink.Sink
	Limits sink.Limits
}

// LimitsOf asks a sink for its limits and fills in the defaults that sink.Limits documents.
func LimitsOf(s sink.Sink) sink.Limits { panic("not yet") }

// Ledger is what delivery needs of internal/ledger; see there for the meaning.
type Ledger interface{}

type Delivery struct{}

// Start starts the workers.
func Start(cfg Config) *Delivery { panic("not yet") }

// Prepare asks every sink.Preparer about features now, joined errors by route. Delivery itself prepares a feature before its first record.
func (d *Delivery) Prepare(ctx context.Context, features []sink.Feature) error { panic("not yet") }

// Flush returns when every record that was open at the call is final or has failed one attempt begun since the call,
// or ctx ends; nil when none of them is left open. It ignores a running backoff once.
func (d *Delivery) Flush(ctx context.Context) error { panic("not yet") }

// Health joins what is wrong with the routes now: last error, since when, how many tries; nil when all is well.
func (d *Delivery) Health() error { panic("not yet") }

// Stop takes nothing more and waits for running attempts until ctx ends. Attempts that still run then keep their goroutine
// and resolve into the ledger if it is still open.
func (d *Delivery) Stop(ctx context.Context) error { panic("not yet") }
