package meter

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config configures a [Meter]. [Open] copies it; a zero field has the default
// that is stated beside it.
//
// Concurrency: a plain value.
type Config struct {
	// Dir is the directory that holds the counts; it is made if it is missing. One
	// process owns it at a time. Required: InMemory accepts that the end of the
	// process loses what was not delivered.
	Dir string
	// Sinks are the routes to whoever bills, at most 8. None: counts are kept for
	// Total and Books only; they stay pending there, under the route "", and no route
	// that is configured later bills them.
	Sinks []Route

	// Adopt is a glob of directories like Dir; those whose owner is dead are taken
	// over, but for those that may hold prepaid units, or owe some. With it no feature can
	// be Prepaid. "": none.
	Adopt string
	// AllowUnknown lets a caller through of whom no verdict can be had, if it is
	// known whom to bill. Default: refused with 503.
	AllowUnknown bool
	// Checker says who may call. An error, a panic, or a verdict whose Until has passed
	// is none. nil: nobody is checked, and callers must bring a Subject. Shutdown
	// closes it if it is an io.Closer.
	Checker license.Checker
	// EventWindow is how long an Event's ID is remembered, in this directory, over
	// restarts, too; in memory up to a fourth longer. An ID takes at most 64 bytes of
	// memory, and 48 more while its Window runs, or 128 more where counts can't be mapped
	// from a file; and at most 128 on disk while it runs, then 64.
	// Each Window in which events were counted keeps its file, of 4 KiB and some 128
	// bytes a series beside them, for EventWindow: where windows are much shorter than a
	// minute, make that shorter, too. All this counts to MaxDisk, and no ID is forgotten
	// for lack of room. 0: 24 h.
	EventWindow time.Duration
	// Identify is the default of every Middleware. nil: each names its own.
	Identify Identify
	// Instance tells apart processes that count for the same subjects at the same
	// time, each in a Dir of its own: from 0 up, at most 59. It stands in every record,
	// for sinks that must not write where another process does, such as Stripe's usage
	// records. No two such processes may have the same; after a restart it should be
	// what it was. 0: the only one.
	Instance int
	// LockWait is how long Open waits for the process that owns Dir to finish, as
	// in a rolling deploy. 0: 30 s. NoWait: not at all.
	LockWait time.Duration
	// Logger gets what no caller can be told. nil: slog.Default().
	Logger *slog.Logger
	// MaxDisk is the most that the segments in Dir may take, in bytes. Beyond it
	// counts wait in memory; Shutdown passes it rather than lose them. 0: 1 GiB.
	MaxDisk int64
	// MeterProvider gets the terms of Books as metrics, and decisions about callers by
	// feature and reason. nil: none.
	MeterProvider metric.MeterProvider
	// OnDecision is told of every decision about a caller, before the call runs. It
	// is called on the caller's goroutine: it must be fast and safe for concurrent
	// use. If it panics, the call goes on as decided, and the Logger is told. nil:
	// nobody is told.
	OnDecision func(context.Context, Decision)
	// RefuseWhenFull refuses counts for which the disk has no room (ErrFull; a
	// Middleware answers 503 while nothing is written). Default: they are counted
	// in memory, and Health says so.
	RefuseWhenFull bool
	// Retain keeps what was delivered at least this long, for Meter.Records; not in
	// memory. 0: until delivered and out of the running period.
	Retain time.Duration
	// Shadow decides and reports to OnDecision, and refuses no caller. Calls are billed
	// as if they were let through. One that leaves nobody to bill runs and counts
	// nothing: the metric meter.unbilled and the Logger say so. What can't be counted
	// (ErrFull, ErrClosed) is refused as ever.
	Shadow bool
	// Sync is how often counts are made safe from power loss; the end of the
	// process alone never loses any. 0: 1 s. SyncAlways: before Add returns.
	// SyncNever: left to the system.
	Sync time.Duration
	// TracerProvider gets a span per delivery. nil: none.
	TracerProvider trace.TracerProvider
	// Window is the span of time whose counts are delivered together, at least 1 s.
	// 0: 1 min. OnFlush: only Flush and Shutdown end one, for serverless functions.
	Window time.Duration
}

// Named values for fields of [Config].
const (
	InMemory                 = ":memory:" // as Dir: a crash loses counts
	SyncAlways time.Duration = -1         // as Sync: group-committed before Add returns
	SyncNever  time.Duration = -2         // as Sync: a power cut may lose counts
	OnFlush    time.Duration = -1         // as Window: only Flush and Shutdown end one
	NoWait     time.Duration = -1         // as LockWait: ErrLocked at once
)

// Route names a sink for good: the ledger remembers outcomes under Name.
//
// Concurrency: a plain value.
type Route struct {
	// Name is required, unique, printable, at most 48 bytes. A route under another
	// name is another route: what is owed to the old one stays pending.
	Name string
	// Sink is required. Shutdown closes it if it is an io.Closer.
	Sink sink.Sink
	// Match says which records belong on this route. It is asked once for each, when
	// its window ends, and the answer is remembered; it must be fast, for Flush and
	// Shutdown wait for it, and must not call the meter, which waits for it in turn.
	// nil: all. What no route takes is billed to nobody, and stands in Books under the
	// route "".
	Match func(sink.Record) bool
}

func (c Config) withDefaults() Config {
	c.Sinks = slices.Clone(c.Sinks)
	if c.EventWindow == 0 {
		c.EventWindow = 24 * time.Hour
	}
	if c.LockWait == 0 {
		c.LockWait = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxDisk == 0 {
		c.MaxDisk = 1 << 30
	}
	if c.Sync == 0 {
		c.Sync = time.Second
	}
	if c.Window == 0 {
		c.Window = time.Minute
	}
	return c
}
