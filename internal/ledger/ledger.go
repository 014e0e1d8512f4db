// Package ledger counts, and remembers what became of what it counted. It knows
// routes by name and never sees a sink.
package ledger

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/inprocess/meter/sink"
)

const (
	SyncAlways time.Duration = -1
	SyncNever  time.Duration = -2
	OnFlush    time.Duration = -1 // as Window: rotate only when told

	MaxRoutes   = 8
	MaxQuantity = 1<<53 - 1 // per series and window
)

// Config of a ledger. Validated by the caller (package meter).
type Config struct {
	Dir            string // "": in memory only
	Adopt          string // glob; "": none
	Routes         []Route
	Window         time.Duration // > 0 or OnFlush
	Sync           time.Duration // > 0, SyncAlways or SyncNever
	Retain         time.Duration
	LockWait       time.Duration // how long Open waits for the directory's lock
	MaxDisk        int64         // > 0
	RefuseWhenFull bool
	Logger         *slog.Logger // required
}

// Route is a named way out, with what the ledger must know of the sink behind it.
type Route struct {
	Name         string
	Address      string
	Match        func(sink.Record) bool // nil: all
	DedupeWindow time.Duration
	MaxAge       time.Duration
	MaxQuantity  int64
	Timeout      time.Duration // > 0: of one attempt
}

var (
	ErrClosed   = errors.New("meter: closed")
	ErrLocked   = errors.New("meter: directory in use")
	ErrFormat   = errors.New("meter: directory from another version")
	ErrFull     = errors.New("meter: no room")
	ErrUnsynced = errors.New("meter: counted, but not yet safe from power loss")
	ErrName     = errors.New("meter: bad feature, subject or dimension")
	ErrQuantity = errors.New("meter: bad quantity")
	ErrKind     = errors.New("meter: wrong method for the feature's kind")
)

type Ledger struct{}

// Open locks and recovers cfg.Dir.
func Open(cfg Config) (*Ledger, error) { panic("not yet") }

// Feature declares a feature; ErrKind if it is known with another kind, ErrName for a bad name.
func (l *Ledger) Feature(name string, kind sink.Kind) (*Feature, error) { panic("not yet") }

type Feature struct{}

// Add counts n of the feature (a Sum) for subject: the hot path, no allocation for a known series.
func (f *Feature) Add(subject string, n int64) error { panic("not yet") }

// Series resolves (or creates) the series of subject and dimensions once; its methods are the fastest way to count.
func (f *Feature) Series(subject string, dimensions map[string]string) (*Series, error) {
	panic("not yet")
}

// Total is what was accepted for subject in the running period: the calendar month in UTC.
func (f *Feature) Total(subject string) (quantity int64, start, end time.Time) { panic("not yet") }

type Series struct{}

func (s *Series) Add(n int64) error     { panic("not yet") } // Sum; 0 does nothing
func (s *Series) Set(level int64) error { panic("not yet") } // Max, Last

// Rotate seals what was counted up to now, so that Take finds it. It returns once that is durable.
func (l *Ledger) Rotate(ctx context.Context) error { panic("not yet") }

// ---- for delivery ----

// Take marks up to max open records of a route as attempted, durably, and
// returns them oldest first; nil when none can be sent now. Records whose
// feature hold reports true stay pending. Records of a (subject, feature) that
// is part of an unresolved batch of this route are left out, so that two
// deliveries never overlap for it.
func (l *Ledger) Take(route, max int, hold func(feature string) bool) (*Batch, error) {
	panic("not yet")
}

type Batch struct {
	Records []sink.Record
}

// Result answers for one record of a batch.
type Result struct {
	Outcome   sink.Outcome // Delivered, Rejected, Pending (surely not applied) or InDoubt, of this attempt alone
	NotBefore time.Time    // earliest next try; zero: any time
	Reason    string       // for the quarantine, without secrets
}

// Resolve records the outcome of an attempt; one result per record. Exactly once.
func (b *Batch) Resolve(results []Result) error { panic("not yet") }

// Ready is signalled (capacity 1) when new records of a route may be open.
func (l *Ledger) Ready(route int) <-chan struct{} { panic("not yet") }

// NextTry is the earliest NotBefore among the route's open records; zero when none waits for a time.
func (l *Ledger) NextTry(route int) time.Time { panic("not yet") }

// Open counts the records a route could still send (pending, or in doubt within the window), and their quantity.
func (l *Ledger) OpenRecords(route int) (records int, quantity int64) { panic("not yet") }

// ---- for the books ----

// Line is one feature on one route.
type Line struct {
	Feature, Route                                                               string
	Accepted, Pending, Delivered, InDoubt, Rejected, Voided, Superseded, Damaged int64
}

func (l *Ledger) Books() []Line                                          { panic("not yet") }
func (l *Ledger) Quarantine() iter.Seq2[QuarantinedRecord, sink.Outcome] { panic("not yet") }
func (l *Ledger) Health() error                                          { panic("not yet") }

// QuarantinedRecord is a record with the route it is quarantined on.
type QuarantinedRecord struct {
	sink.Record
	Route string
}

// Settle is an operator's decision on a quarantined record: Voided, Delivered, Rejected, or Pending to queue it again.
func (l *Ledger) Settle(ctx context.Context, route, recordID string, as sink.Outcome, note string) error {
	panic("not yet")
}

// Close seals, syncs and unlocks, even when ctx has ended. Later counts are ErrClosed.
func (l *Ledger) Close(ctx context.Context) error { panic("not yet") }
