package stripesink

import (
	"context"
	"fmt"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
)

// requestTimeout bounds one request: Stripe answers within a second or is ill.
const requestTimeout = 20 * time.Second

// Deliver sends the records one after another, each as one meter event. It stops
// at the first trouble that is not the record's own (no connection, a refused
// key, throttling, an answer that leaves doubt) and when ctx ends; the records
// behind it are not sent and say so.
//
// Blocking: until all are answered, at most 20 s a record and as long for an event
// of the same customer and meter that is under way, or until ctx ends.
//
// Errors: nil, or a [*sink.BatchError], or one error if it holds for all. A record
// is [sink.ErrRejected] if Stripe calls it invalid, or if Stripe would take and
// never bill it; [sink.ErrNotApplied] if it surely was not recorded, and also if
// its feature has no meter or the configuration is faulty; anything else is
// doubt. No error holds the key.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record) error {
	if s.faults != nil {
		return fmt.Errorf("%w: the configuration is faulty: %w", sink.ErrNotApplied, s.faults)
	}
	return each(ctx, records, s.deliver)
}

// each delivers records one after another, as Deliver says.
func each(ctx context.Context, records []sink.Record, deliver func(context.Context, sink.Record) (err error, halt bool)) error {
	errs, failed := make([]error, len(records)), false
	for i, r := range records {
		err, halt := ctx.Err(), true
		if err != nil {
			err = errUnsent(err)
		} else {
			err, halt = deliver(ctx, r)
		}
		errs[i] = err
		failed = failed || err != nil
		if !halt {
			continue
		}
		if i == 0 && isNotApplied(err) {
			return err // true of every record, so the whole route may wait
		}
		for j := i + 1; j < len(records); j++ {
			errs[j] = behind(err)
		}
		break
	}
	if !failed {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

// behind is the error of a record that was not sent because of err before it.
func behind(err error) error {
	unsent := fmt.Errorf("%w: stripesink: not sent, for a record before it failed: %s", sink.ErrNotApplied, err)
	return pause(unsent, sink.RetryDelay(err))
}

// deliver sends one record. halt says that the records behind it should wait.
func (s *Sink) deliver(ctx context.Context, r sink.Record) (err error, halt bool) {
	m, ok := s.cfg.Meters[r.Feature]
	if !ok {
		return errNoMeter(r.Feature), false
	}
	customer, err := s.customer(ctx, r.Subject)
	if err != nil {
		return err, !waits(err)
	}
	params, err := newEvent(m, r, customer)
	if err != nil {
		return err, false
	}
	if known := s.traces.of(r); known.payer != "" && known.payer != customer {
		return notSent(sink.ErrRejected, "customer %s may be billed for it already, and its subject leads to %s now", known.payer, customer), false
	}
	end, err := s.turns.take(ctx, m.EventName+" "+customer)
	if err != nil {
		return errUnsent(err), true
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, exchange := stripeapi.Watch(ctx)
	params.Context, params.IdempotencyKey = ctx, idempotencyKey(r)
	s.absent.Remove(r.ID) // what Verify has found is of the attempts before
	event, err := s.events.New(params)
	a := answer{Exchange: exchange, err: err, made: meterEvent, at: timestamp(r), id: r.ID, key: s.cfg.Key}
	if event != nil {
		a.object = event.Object
	}
	err, halt = classify(a)
	s.traces.note(r, trace{payer: customer}, err)
	return err, halt
}

func errUnsent(why error) error {
	return fmt.Errorf("%w: stripesink: not sent: %w", sink.ErrNotApplied, why)
}

func errNoMeter(feature string) error {
	return fmt.Errorf("%w: stripesink: no Stripe meter for feature %q: its counts are kept; add it to Config.Meters, or keep its records off this route by Route.Match",
		sink.ErrNotApplied, feature)
}
