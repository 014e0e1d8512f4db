package cryptolenssink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/inprocess/meter/sink"
)

// Deliver sends the records one after another, each as one call of RecordUsage. It
// stops at the first trouble that is not the record's own and when ctx ends; the
// records behind it are not sent and say so.
//
// Blocking: until all are answered, at most 30 s a record and 20 s for a call for the
// same key that is under way, or until ctx ends.
//
// Errors: nil, or a [*sink.BatchError], or one error if it holds for all. A record is
// [sink.ErrRejected] if it can't be an amount; [sink.ErrPostponed] if it is not sent for
// want of a key, or refused for what the key is; [sink.ErrNotApplied] if it surely was
// not recorded for another reason; anything else is doubt. No error holds token or key.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record) error {
	if s.faults != nil {
		return errFaulty(s.faults)
	}
	return each(ctx, records, s.deliver)
}

func errFaulty(faults error) error {
	return fmt.Errorf("%w: the configuration is faulty: %w", sink.ErrNotApplied, faults)
}

// deliver sends one record. halt says that the records behind it should wait.
func (s *Sink) deliver(ctx context.Context, r sink.Record) (err error, halt bool) {
	if r.Kind != sink.Sum {
		return reject(r, "RecordUsage adds up, so it can't bill kind %v of feature %q", r.Kind, r.Feature), false
	}
	if err := checkQuantity(r); err != nil {
		return err, false
	}
	if err := s.checkFeature(r.Feature); err != nil {
		return err, false
	}
	if r.Doubt && s.cfg.Doubt == Assume {
		return nil, false
	}
	if err := checkTime(r); err != nil {
		return err, false
	}
	key, err := s.keys.of(ctx, r)
	if err != nil {
		return err, false
	}
	end, err := s.turns.take(ctx, key)
	if err != nil {
		return errUnsent(err), true
	}
	defer end()
	err, halt = classify(r, s.client.RecordUsage(ctx, s.cfg.ProductID, key, r.Quantity))
	if s.cfg.Doubt == Assume && isDoubt(err) {
		return nil, halt
	}
	return err, halt
}

// checkTime refuses usage that is reported for a month that is over: Cryptolens would
// take it for usage of now, and bill it in another period than its own.
func checkTime(r sink.Record) error {
	used, now := r.Start.UTC(), time.Now().UTC()
	if !r.Backdated || used.Year() == now.Year() && used.Month() == now.Month() {
		return nil
	}
	if r.Doubt {
		return reject(r, "it was used in %s, which is over, and may have been counted before that: compare, and bill it by hand if it was not", used.Format("January 2006"))
	}
	return reject(r, "it was used in %s, which is over, and Cryptolens counts usage when it arrives: bill it by hand", used.Format("January 2006"))
}

// checkQuantity refuses what the API would not take for what it is.
func checkQuantity(r sink.Record) error {
	switch {
	case r.Kind == sink.Sum && r.Quantity < 1, r.Quantity < 0:
		return reject(r, "quantity %d of feature %q, kind %v, is too low", r.Quantity, r.Feature, r.Kind)
	case r.Quantity > math.MaxInt32:
		return reject(r, "quantity %d of feature %q is more than the API's %d", r.Quantity, r.Feature, math.MaxInt32)
	}
	return nil
}

// each delivers records one after another, as Deliver says.
func each(ctx context.Context, records []sink.Record, deliver func(context.Context, sink.Record) (err error, halt bool)) error {
	errs, failed := make([]error, len(records)), false
	for i, r := range records {
		err, halt := unsendable(ctx, i), true
		if err == nil {
			err, halt = guarded(ctx, r, deliver)
		}
		errs[i] = err
		failed = failed || err != nil
		if !halt {
			continue
		}
		if i == 0 && errors.Is(err, sink.ErrNotApplied) {
			return err // true of every record, so the whole route may wait
		}
		for j := i + 1; j < len(records); j++ {
			errs[j] = behind(err)
			failed = true
		}
		break
	}
	if !failed {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

// guarded makes a doubt of the one record of a panic while it is sent, such as of an
// http.RoundTripper: of the others it is known what became of them.
func guarded(ctx context.Context, r sink.Record, deliver func(context.Context, sink.Record) (err error, halt bool)) (err error, halt bool) {
	defer func() {
		if p := recover(); p != nil {
			err, halt = doubt(r, errors.New("the call "+panicked(p))), true
		}
	}()
	return deliver(ctx, r)
}

// unsendable says why the ith record of a batch is better not sent: what the end of
// ctx would cut off is in doubt.
func unsendable(ctx context.Context, i int) error {
	if err := ctx.Err(); err != nil {
		return errUnsent(err)
	}
	if deadline, ok := ctx.Deadline(); ok && i > 0 && time.Until(deadline) < requestTimeout {
		return errUnsent(errors.New("the batch has too little time left for another call"))
	}
	return nil
}

// behind is the error of a record that was not sent because of err before it.
func behind(err error) error {
	why := "the one before it was in doubt"
	if err != nil {
		why = "a record before it failed: " + err.Error()
	}
	unsent := fmt.Errorf("%w: cryptolenssink: not sent, for %s", sink.ErrNotApplied, why)
	return sink.RetryAfter(unsent, sink.RetryDelay(err))
}

func errUnsent(why error) error {
	return fmt.Errorf("%w: cryptolenssink: not sent: %w", sink.ErrNotApplied, why)
}
