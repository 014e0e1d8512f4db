package stripesink

import (
	"context"
	"errors"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

const (
	// absentGap is how far apart Stripe must say twice that it has nothing: its
	// totals come late, and it states no bound.
	absentGap = 3 * time.Hour
	// maxAbsent bounds for how many records the first time is remembered.
	maxAbsent = 10_000
)

// Verify finds out by the total of one minute whether Stripe has a record that can't
// be sent again, because it is older than the 24 hours for which Stripe refuses what
// it has seen.
//
// Stripe can't be asked for one event. But the total of a minute in which nothing but
// this record's event can lie tells: it is the record's quantity, so the record was
// recorded ([sink.Delivered]); or it is 0, and again at least 3 hours later, so it was
// not ([sink.Pending]). Any other total is [sink.InDoubt], and so is every record for
// which the minute proves nothing. It proves something if
//
//   - Config.SoleWriter is set, SubjectMetadata is not, and alone is true;
//   - the record is of instance 0, of kind Sum, and of a quantity up to 2^53;
//   - its meter is active, older than the record, of formula sum, without a time window,
//     and no other feature's;
//   - the whole UTC minute of its event lies within its window, as it does if windows
//     are of whole minutes and begin at whole minutes.
//
// The first total of 0 is remembered in memory, for the last 10,000 records: after a
// restart, or once the record is sent again, the 3 hours begin anew.
//
// This rests on documented behavior, not on an experiment with a live account. An
// event that Stripe took and then could not bill, for want of a customer, is absent
// from the total, too: sent again, it is reported again to [Sink.Webhook]. Of a customer
// whom Stripe doesn't know the outcome is always [sink.InDoubt].
//
// Blocking: one or two requests as a rule, at most 20 s each, within ctx.
//
// Errors: the configuration's, and those of the requests; the outcome is then
// [sink.InDoubt]. No error holds the key.
func (s *Sink) Verify(ctx context.Context, r sink.Record, alone bool) (sink.Outcome, error) {
	if s.faults != nil {
		return sink.InDoubt, s.faults
	}
	minute, ok := s.ownMinute(r, alone)
	if !ok {
		return sink.InDoubt, nil
	}
	customer, err := s.customer(ctx, r.Subject)
	if err != nil {
		return sink.InDoubt, err
	}
	m, err := s.meterOf(ctx, r.Feature)
	if err != nil {
		return sink.InDoubt, err
	}
	if !sumsRaw(m) || m.Status != stripe.BillingMeterStatusActive || m.Created > r.Start.Unix() {
		return sink.InDoubt, nil
	}
	total, err := s.total(ctx, m, customer, minute, minute.Add(time.Minute))
	switch {
	case errors.Is(err, errMissing):
		return sink.InDoubt, nil // of this record alone, so that others are asked about
	case err != nil:
		return sink.InDoubt, err
	}
	switch total {
	case float64(r.Quantity):
		s.absent.Remove(r.ID)
		return sink.Delivered, nil
	case 0:
		return s.missing(r), nil
	}
	s.absent.Remove(r.ID)
	return sink.InDoubt, nil
}

// missing judges a record that Stripe's total is without.
func (s *Sink) missing(r sink.Record) sink.Outcome {
	first, before, _ := s.absent.PeekOrAdd(r.ID, time.Now())
	if !before || time.Since(first) < absentGap {
		return sink.InDoubt
	}
	s.absent.Remove(r.ID)
	return sink.Pending
}

// ownMinute returns the minute of the record's event, if what is known here allows no
// other event in it.
func (s *Sink) ownMinute(r sink.Record, alone bool) (minute time.Time, ok bool) {
	minute = time.Unix(timestamp(r), 0).UTC().Truncate(time.Minute)
	within := !minute.Before(r.Start) && !minute.Add(time.Minute).After(r.End)
	ok = s.cfg.SoleWriter && s.cfg.SubjectMetadata == "" && alone && within && r.Instance == 0 &&
		r.Kind == sink.Sum && r.Quantity > 0 && r.Quantity <= maxExact && !s.sharesMeter(r.Feature)
	return minute, ok
}

// sharesMeter reports whether another feature is billed by the same meter.
func (s *Sink) sharesMeter(feature string) bool {
	for other, m := range s.cfg.Meters {
		if other != feature && m.EventName == s.cfg.Meters[feature].EventName {
			return true
		}
	}
	return false
}
