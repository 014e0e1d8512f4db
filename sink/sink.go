// Package sink is the contract between meter and whoever bills: a payment
// provider, a licensing server, a database, a file.
//
// A sink is one method, [Sink.Deliver]. What it returns decides what happens to
// each record, and so whether a customer is billed once, twice or never:
//
//	nil               delivered
//	ErrRejected       final: the biller will never take it
//	ErrNotApplied     this attempt surely recorded nothing: sent again later
//	ErrPostponed      the same, for a reason of that record alone
//	any other error   in doubt: sent again only while the sink dedupes by ID
//
// Without [Limits].DedupeWindow doubt goes to an operator at once, so any error but
// ErrNotApplied and ErrRejected does. Return ErrNotApplied when the connection was
// refused, ErrRejected for a [Kind] that you don't know, and a [*BatchError] when
// the records of a batch fared differently.
//
// Run [github.com/inprocess/meter/sink/sinktest] against every sink you write.
package sink

import (
	"context"
	"math"
	"time"
)

// Sink delivers records to a biller.
//
// Deliver gets at least one record and at most [Limits].MaxBatch. It returns nil
// when all are recorded, a [*BatchError] to answer for each record alone, or one
// error that holds for all: [ErrRejected], [ErrNotApplied], or anything else for
// doubt. It must not retain or change the records, and must not retry: meter
// does, under the same [Record].ID.
//
// Blocking: Deliver may block until ctx ends; it should return soon after.
// Concurrency: called from up to [Limits].Concurrency goroutines, never twice at
// once for one (Subject, Feature).
type Sink interface {
	Deliver(ctx context.Context, records []Record) error
}

// Func is a function that is a [Sink]. Its limits are the zero [Limits].
type Func func(ctx context.Context, records []Record) error

// Deliver calls f.
//
// Errors: those of f.
func (f Func) Deliver(ctx context.Context, records []Record) error { return f(ctx, records) }

// Kind says how the quantities of one window combine. A sink must reject kinds
// that it does not know.
//
// Concurrency: a plain value.
type Kind uint8

const (
	Sum  Kind = iota // quantities add up; the zero value
	Max              // the highest level of the window counts
	Last             // the latest level of the window counts
)

// String returns "sum", "max" or "last".
func (k Kind) String() string {
	switch k {
	case Sum:
		return "sum"
	case Max:
		return "max"
	case Last:
		return "last"
	}
	return "unknown"
}

// Record is one series' total in one window. It is immutable and its ID is fixed
// before the first attempt: every further attempt carries the same ID and body.
//
// Concurrency: read-only, Dimensions included.
type Record struct {
	ID         string            // unique, at most 64 bytes of [0-9a-z-]
	Feature    string            // what was used
	Subject    string            // who is billed
	Dimensions map[string]string // nil: none; read-only
	Kind       Kind              // how quantities combine
	Quantity   int64             // whole units; above 0 for Sum, at least 0 for Max and Last
	Start, End time.Time         // when it was used: [Start, End), whole seconds, UTC
	Attempt    int               // 1 on the first attempt
	Doubt      bool              // an earlier attempt may have been recorded
	Backdated  bool              // reported after [Start, End) had ended: other records of the series may have the same Start
	Instance   int               // of the meter that counted it, as its Config.Instance says
}

// Feature is what a sink may want to know before any record of it comes.
//
// Concurrency: a plain value.
type Feature struct {
	Name, Unit string
	Kind       Kind
}

// Limits of a sink. The zero value means: 100 records a call, one call at a
// time, any age and quantity, and no dedupe, so that doubt goes to quarantine at
// once.
//
// A count that would take a record past MaxQuantity ends the window early, for all
// routes, at most once a second, and waits for that. A single count above it is
// refused with meter.ErrQuantity.
//
// Concurrency: a plain value.
type Limits struct {
	MaxBatch     int           // most records a call; 0: 100
	Concurrency  int           // most calls at a time; 0: 1
	MaxAge       time.Duration // older records are quarantined, not sent; 0: any age
	MaxQuantity  int64         // most units a record; 0: no limit but meter's own
	DedupeWindow time.Duration // how long the biller refuses an ID that it has seen; Forever: without end
	Rate         float64       // most records a second; 0: no limit
	Timeout      time.Duration // most time a call may take; 0: 30 s
	MinWindow    time.Duration // windows begin at least this far apart; 0: 1 s
	Confirm      time.Duration // how long after a delivery the biller may still take it back; 0: never
}

// Forever as [Limits].DedupeWindow: the biller is idempotent by ID without end.
const Forever time.Duration = math.MaxInt64

// Limiter states the limits of a sink. A sink without it has the zero [Limits].
//
// Concurrency: called once, while a meter opens.
type Limiter interface{ Limits() Limits }

// Validator finds faults of configuration, without the network. Its error ends
// meter.Open, so it should name every field that is wrong.
//
// Concurrency: called once, while a meter opens.
type Validator interface{ Validate() error }

// Preparer finds faults on the biller's side, per feature, before any of its
// records is sent: a meter that does not exist, or one that would sum a Max. It
// may use the network and must be repeatable. While it fails for a feature, the
// feature's records stay pending; to name the feature at fault, return a
// [*BatchError] with one entry per feature.
//
// Concurrency: never called twice at once by one meter.
type Preparer interface {
	Prepare(ctx context.Context, features []Feature) error
}

// Combiner states which kinds a sink can bill. meter refuses a feature of
// another kind when it is declared. A sink without it takes every kind.
//
// Concurrency: called while features are declared; must be safe.
type Combiner interface{ Kinds() []Kind }

// Reader tells what the biller has, for dashboards and reconciliation.
//
// Concurrency: must be safe.
type Reader interface {
	Usage(ctx context.Context, feature, subject string, start, end time.Time) (int64, error)
}

// Scheduler names moments at which windows must end, because what is used after
// them stands on another bill.
//
// NextEnd is the first such moment after a time; zero when none is known. It is
// asked every second or so and must answer from memory.
//
// Concurrency: must be safe.
type Scheduler interface {
	NextEnd(after time.Time) time.Time
}

// Verifier finds out whether a record in doubt was recorded, once it can't be sent
// again. meter asks about such records in quarantine, every now and then, and
// settles them by the answer: Delivered, or Pending if it surely was not recorded
// and is to be sent again. InDoubt leaves the record where it is.
//
// alone says that no other record of its feature and subject, from the same
// directory, was used at any time within [Start, End).
//
// Concurrency: never called twice at once by one meter.
type Verifier interface {
	Verify(ctx context.Context, r Record, alone bool) (Outcome, error)
}

// Voider takes a record back from the biller. meter asks when an operator voids a
// record that was or may have been recorded. Nil means that the biller will not
// bill it, also because it never had it.
//
// Concurrency: must be safe.
type Voider interface {
	Void(ctx context.Context, r Record) error
}

// Addressed names where a sink delivers to: an account and mode, a path, a URL;
// never a secret. meter remembers it under the route's name and refuses to open
// when the same name suddenly leads elsewhere, for then what is owed to one
// account would be billed to another. A sink without it has the address "".
//
// Concurrency: called once, while a meter opens.
type Addressed interface{ Address() string }

// Outcome is what became of a record on a route.
//
// Concurrency: a plain value.
type Outcome uint8

const (
	Pending    Outcome = iota // to be sent
	Attempted                 // being sent right now
	Delivered                 // recorded by the biller
	InDoubt                   // sent, and nobody knows whether it was recorded
	Rejected                  // refused by the biller for good
	Voided                    // written off by an operator
	Superseded                // a Last record made obsolete by a newer one
)

// String returns the outcome in words, such as "in doubt".
func (o Outcome) String() string {
	switch o {
	case Pending:
		return "pending"
	case Attempted:
		return "attempted"
	case Delivered:
		return "delivered"
	case InDoubt:
		return "in doubt"
	case Rejected:
		return "rejected"
	case Voided:
		return "voided"
	case Superseded:
		return "superseded"
	}
	return "unknown"
}
