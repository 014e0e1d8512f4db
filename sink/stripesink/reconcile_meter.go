package stripesink

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// Reconcile compares the records of a ledger with the totals of Stripe's meters, per
// customer and meter, for usage in [start, end), widened to whole minutes: start is
// rounded down, end up. It only reads: what to do about a difference is a person's
// decision.
//
// records are those of the sink's route with their outcomes, as Meter.Records yields
// them; they are ranged over twice. They must be those of all processes that bill these
// customers: what a ledger does not have shows as a difference. A record belongs to the time of its event, the last
// second of its window, so a window that began before start can end in it: give
// Reconcile records of an hour more than it compares, or whole hours, which no window
// of meter crosses. Records of other times are passed over.
//
// What Delivered counts, Stripe has accepted: it answered 200. What Billed counts, its
// meter has added up. Stripe adds up later than it accepts and states no bound, so let
// an hour or more pass after end; a total that is too low may also be one of errors
// that Stripe reports to [Sink.Webhook]. Events that others send for these customers
// and meters are in Billed alone. Usage of customers of whom the ledger has no record
// can't be found: Stripe lists no customers of a meter.
//
// It makes one request per customer and meter, at most 10 a second in live mode and 4
// in test mode, and those of looking up subjects. Stripe allows reads in proportion to
// payments (500 a payment in 30 days, at least 10,000 a month), so once a day will do.
//
// Blocking: until all are read or ctx ends; 10,000 customers take about 20 minutes.
//
// Errors: the configuration's; no list of meters; records that can't be ranged over
// twice; the end of ctx, with the lines that were read till then. A customer whose total
// can't be read is a line with an error, and the others go on. No error holds the key.
func (s *Sink) Reconcile(ctx context.Context, records iter.Seq2[sink.Record, sink.Outcome], start, end time.Time) (Reconciliation, error) {
	start, end = wholeMinutes(start, end)
	if s.faults != nil {
		return Reconciliation{Start: start, End: end}, s.faults
	}
	meters, err := listMeters(ctx, s.meters)
	if err != nil {
		return Reconciliation{Start: start, End: end}, err
	}
	s.known.keep(meters)
	// Well below the 25 requests that Stripe allows an endpoint, and in test mode, where
	// all requests share 25, what deliveries leave.
	pace := paceOf(s.cfg.Key, 10, 4)
	c := reconciler{timestamp, func(ctx context.Context, r sink.Record) account {
		a, m := s.account(ctx, r, meters)
		a.start, a.end = start.Unix(), end.Unix()
		a.read = func(ctx context.Context) (int64, error) {
			if err := turn(ctx, pace); err != nil {
				return 0, err
			}
			total, err := s.total(ctx, m, a.subject, start, end)
			if err != nil {
				return 0, err
			}
			return units(total)
		}
		return a
	}}
	return c.run(ctx, records, start, end)
}

// account is that of a record's customer and meter, without its times.
func (s *Sink) account(ctx context.Context, r sink.Record, meters map[string]*stripe.BillingMeter) (a account, m *stripe.BillingMeter) {
	a.subject = r.Subject
	want, ok := s.cfg.Meters[r.Feature]
	if !ok {
		a.err = errNoMeter(r.Feature)
		return a, nil
	}
	if m = meters[want.EventName]; m == nil {
		a.err = s.errMissingMeter(r.Feature, want.EventName)
		return a, nil
	}
	if a.way, ok = wayOf(m); !ok {
		a.err = fmt.Errorf("stripesink: meter %q has formula %q and event_time_window %q, to which no quantities here compare",
			stripeapi.Clean(m.EventName, s.cfg.Key), formula(m), m.EventTimeWindow)
		return a, nil
	}
	customer, err := s.customer(ctx, r.Subject)
	if err != nil {
		a.err = err
		return a, nil
	}
	a.total, a.subject = m.ID+" "+customer, customer
	return a, m
}
