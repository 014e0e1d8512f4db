// Package meter counts what customers use, in the vendor's own process, checks
// that they may use it, and delivers the counts to whoever bills.
//
// # Counting
//
// A [Feature] is what is counted and sold. Wrap an HTTP handler with
// [Middleware], a function with [Wrap], [Do], [DoValue] or [Seq], or count by hand
// with [Feature.Add], [Feature.Set] and [Counter.Add]. Every wrapper is made of
// [Feature.Begin]: check, then count with [Call.Commit] or don't with
// [Call.Cancel].
//
// # What is promised
//
// Per feature and route, at every moment, across kill -9, restarts, outages of
// sinks and full disks:
//
//	accepted = pending + delivered + in doubt + rejected + voided + superseded + damaged
//
// [Meter.Books] shows the terms. Nothing is dropped silently and nothing is billed
// twice: a record whose fate nobody knows is sent again only while its sink
// refuses an ID that it has seen, and waits for an operator after that
// ([Meter.Quarantine], [Meter.Settle]).
//
// An error from Add, Set or Commit means: not counted. The one exception is
// [ErrUnsynced]. Contexts carry values (the caller, dimensions, traces) and never
// cancel a count that was earned.
//
// # Words
//
// A feature with its kind is what Stripe and OpenMeter call a meter; a record
// becomes their usage record or meter event; a subject is their customer.
// OpenTelemetry's usual "var meter = otel.Meter(…)" collides with this package's
// name: alias one of them.
package meter
