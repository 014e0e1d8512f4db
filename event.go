package meter

import (
	"context"
	"maps"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Event is one occurrence with an identity of its own, such as a message of a queue
// that delivers some of them more than once, or a line of an import.
//
// Concurrency: a plain value.
type Event struct {
	// ID is what makes it one: at most 256 bytes of UTF-8 without control characters,
	// unique within the feature. "": none; it is counted as by Add.
	ID string
	// Subject is who is billed; as for Add.
	Subject string
	// Quantity is in units; as for Add. An event of 0 is not counted, nor remembered.
	Quantity int64
	// Time is when it was used; zero: now. It decides in which window, and so on which
	// bill, the quantity stands. See AddEvent.
	Time time.Time
	// Dimensions come on top of those of the context. An event that comes again is the
	// same one, whatever dimensions and Time it has then.
	Dimensions map[string]string
}

// AddEvent counts an event of a Sum, once: one whose ID was counted for this feature
// within Config.EventWindow, in this directory, changes nothing and gives nil, so
// that whoever delivers it can acknowledge it. Books counts such duplicates. ctx
// never cancels the count.
//
// Guarantee: as for Add, and counting and remembering are one step: whatever becomes
// of the process, an event is counted and remembered, or neither. After nil it is
// both; after a death or an error that is not ErrUnsynced, delivering it again is
// right. An event that was refused is not remembered. Of many at the same time with
// one ID one is counted, and the others return after it, when it is as safe.
// While the disk is full, or its file fails, events are counted in memory, which is
// ErrUnsynced whatever Config.Sync is: such an event may be delivered again until that
// gives nil, and the windows with events are billed once they are on disk.
// What a disk damages is forgotten with its count, which Health says; a count that
// was billed before that is billed again if its event comes again. A directory that
// is adopted brings its events along; a restored backup knows those that it has.
// IDs are told apart by 128 bits of their SHA-256.
//
// With a Time before the running window, the quantity stands in the window of that time,
// or with Window OnFlush in its minute, as a record of its own (sink.Record.Backdated),
// and counts in the calendar month, and the period of a quota, in which it was used.
// That holds also once those are over: usage never moves into another period by itself.
// What becomes of it then is the sink's to say: Stripe's meters bill it as long as the
// period's invoice isn't finalized, and stripesink.UsageRecords as its Late says, which
// cryptolenssink can't, so it rejects usage of a month that is over, and a person
// decides. A Time up to 5 minutes ahead is now, for clocks differ.
// [Limit] is asked for a period that is not known yet; one that a verdict gives is known
// from the first call on.
// Blocking: as for Add, and as Limit does.
// Errors: as for Add; ErrName for the ID, too. ErrUnsynced: counted and remembered, but
// not yet safe from power loss, or from the end of the process while the disk is full.
// ErrConflict: the ID was counted with another quantity or subject, which stands.
// ErrTime: the Time is further ahead, or longer ago than the MaxAge of a route's sink,
// counted from the begin of its window.
func (f *Feature) AddEvent(ctx context.Context, e Event) error {
	var values map[string]string
	if d := dimensionsOf(ctx); d != nil {
		if d.err != nil {
			return d.err
		}
		values = d.values
	}
	if len(e.Dimensions) > 0 {
		for name, value := range e.Dimensions {
			if err := checkDimension(name, value); err != nil {
				return err
			}
		}
		all := maps.Clone(e.Dimensions)
		for name, value := range values {
			if _, own := all[name]; !own {
				all[name] = value
			}
		}
		values = all
	}
	f.foresee(ctx, e.Subject)
	if e.ID == "" {
		return f.ledger.AddAt(e.Subject, values, e.Time, e.Quantity)
	}
	return f.ledger.AddEvent(e.Subject, values, e.Time, scopeEvents, e.ID, e.Quantity)
}

// foresee has the period known that Limit gives a subject before its first event, for
// imports often come before calls.
func (f *Feature) foresee(ctx context.Context, subject string) {
	if f.limit == nil || f.ledger.Tally(subject) != nil {
		return
	}
	q, err := f.limitOf(ctx, subject)
	if err != nil || q.Start.IsZero() && q.End.IsZero() {
		return // calls say so, and what the month has is known at any time
	}
	bounds := boundsOf(&q)
	if t, admission, err := f.ledger.Reserve(nil, subject, &bounds, 0, false); err == nil && admission != ledger.Refused {
		t.Release(0)
	}
}

// Scopes keep IDs of different origin apart. They stand in directories.
const (
	scopeEvents     = ""
	scopeIdempotent = "idempotency-key " // and the subject
)

// countOnce is count for a call that was made under an idempotency key.
func (c *Call) countOnce(n int64) error {
	var values map[string]string
	if c.dims != nil {
		values = c.dims.values // admit has looked at them
	}
	scope := scopeIdempotent + c.subject
	if c.tally == nil {
		return c.feature.ledger.AddEvent(c.subject, values, time.Time{}, scope, c.repeat, n)
	}
	return c.feature.ledger.AddEventHeld(c.subject, values, scope, c.repeat, n, c.tally, c.held.Swap(0))
}

// repeats reports whether the call was counted before, as its idempotency key says.
func (c *Call) repeats() bool {
	return c.repeat != "" && c.feature.ledger.Remembers(scopeIdempotent+c.subject, c.repeat)
}

// events makes the instrument of duplicates.
func (in *instruments) events() {
	if in.err == nil {
		in.duplicates, in.err = in.meter.Int64ObservableCounter("meter.duplicates",
			metric.WithUnit("{event}"), metric.WithDescription("Events that came again and were not counted again."))
	}
	in.observables = append(in.observables, in.duplicates)
}

func (in *instruments) observeDuplicates(o metric.Observer, all []*Feature) {
	for _, f := range all {
		if n := f.ledger.Duplicates(); n > 0 {
			o.ObserveInt64(in.duplicates, n, metric.WithAttributeSet(attribute.NewSet(attribute.String("meter.feature", f.name))))
		}
	}
}
