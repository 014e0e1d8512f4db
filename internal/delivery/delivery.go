// Package delivery moves records from the ledger to the sinks: one dispatcher
// per route, so that no sink can hurt another.
//
// A dispatcher takes a batch only when a slot is free, the route is not backing
// off and its rate allows it, for a taken record is marked as attempted. What the
// sink answers goes back to the ledger record by record; whatever cannot be
// understood is doubt. Nothing polls: a dispatcher sleeps until the ledger, a
// timer, an ended attempt, Flush or Stop wakes it.
package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/inprocess/meter/sink"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config of a delivery. Validated by the caller (package meter).
//
// Concurrency: copied on entry.
type Config struct {
	Ledger        Ledger
	Routes        []Route               // in the ledger's order
	Features      func() []sink.Feature // every feature declared so far; nil: none
	Logger        *slog.Logger          // nil: no logs
	MeterProvider metric.MeterProvider  // nil: no metrics
	Tracer        trace.Tracer          // nil: no spans
}

// Route is a sink with its limits, defaults filled in by LimitsOf.
//
// Concurrency: a plain value.
type Route struct {
	Name   string
	Sink   sink.Sink
	Limits sink.Limits
}

var errStopped = errors.New("meter: delivery is stopped")

// Delivery runs the routes.
//
// Concurrency: safe.
type Delivery struct {
	routes []*route
	halt   context.CancelFunc
}

// Start starts the dispatchers. End them with Stop.
func Start(cfg Config) *Delivery {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Features == nil {
		cfg.Features = func() []sink.Feature { return nil }
	}
	life, halt := context.WithCancel(context.Background())
	d := &Delivery{halt: halt}
	watch := newTelemetry(cfg)
	for i, route := range cfg.Routes {
		d.routes = append(d.routes, newRoute(life, cfg, i, route, watch))
	}
	for _, r := range d.routes {
		go r.run()
		r.consult()
	}
	return d
}

// Prepare asks every sink.Preparer about features now. Delivery itself prepares
// a feature before its first record. A feature that fails is held until a later
// try succeeds, even if an earlier one did.
//
// Blocking: until every sink has answered or ctx ends.
// Errors: those of the sinks, joined, by route and feature; ctx's.
func (d *Delivery) Prepare(ctx context.Context, features []sink.Feature) error {
	errs := make([]error, len(d.routes))
	var routes sync.WaitGroup
	for i, r := range d.routes {
		if r.prep != nil && len(features) > 0 {
			routes.Go(func() { errs[i] = r.prep.prepare(ctx, features) })
		}
	}
	routes.Wait()
	return errors.Join(errs...)
}

// Flush returns nil once nothing that was open at the call is open any more. It
// returns an error when every record that still is has failed an attempt begun
// since the call; or the route is down, that is, it failed again and three times
// in a row; or what remains cannot be tried before ctx ends, or is held because
// its feature cannot be prepared. It ignores a running backoff once, but neither
// the route's rate nor the time before which a sink does not want one record
// again. Records that become open meanwhile are waited for as well.
//
// Blocking: until then or until ctx ends.
// Errors: by route the number of records left and the last error; ctx's.
func (d *Delivery) Flush(ctx context.Context) error {
	flushes := make([]*flush, len(d.routes))
	for i, r := range d.routes {
		flushes[i] = r.startFlush(ctx)
	}
	var errs []error
	for i, r := range d.routes {
		errs = append(errs, r.awaitFlush(ctx, flushes[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// Health joins what is wrong with the routes now: the last error, since when,
// how many tries; deliveries past their deadline; features that cannot be
// prepared. Nil when all is well.
//
// Blocking: no.
// Errors: as above; errors.Is finds what the sinks returned.
func (d *Delivery) Health() error {
	var errs []error
	for _, r := range d.routes {
		errs = append(errs, r.health()...)
	}
	return errors.Join(errs...)
}

// Stop takes nothing more and waits for running attempts until ctx ends.
// Attempts that still run then keep their goroutine and resolve into the ledger
// if it is still open. It may be called again.
//
// Blocking: until every attempt has ended or ctx ends; where none runs, a moment.
// Errors: by route the attempts that still run; ctx's.
func (d *Delivery) Stop(ctx context.Context) error {
	d.halt()
	var errs []error
	for _, r := range d.routes {
		select {
		case <-r.exited:
		case <-ctx.Done():
			errs = append(errs, r.unfinished())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}
