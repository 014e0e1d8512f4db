package stripesink

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
	"golang.org/x/time/rate"
)

// Reads a second while reconciling: well below the 25 that Stripe allows an endpoint,
// and in test mode, where they count against the same 25 as deliveries, below what
// those leave.
const (
	liveReads = 10
	testReads = 4
)

// Reconcile compares the records of a ledger with the totals of Stripe's meters, per
// customer and meter, for usage in [start, end), widened to whole minutes: start is
// rounded down, end up. It only reads: what to do about a difference is a person's
// decision.
//
// records are those of the sink's route with their outcomes, as Meter.Records yields
// them. A record belongs to the time of its event, the last second of its window, so a
// window that began before start can end in it: give Reconcile an hour more than it
// asks for, or whole hours, which no window of meter crosses. Records of other times are
// passed over.
//
// What Delivered counts, Stripe has accepted: it answered 200. What Billed counts, its
// meter has added up. Stripe adds up later than it accepts and states no bound, so let
// an hour or more pass after end; a total that is too low may also be one of errors
// that Stripe reports to [Sink.Webhook]. Events that others send for these customers
// and meters are in Billed alone. Usage of customers of whom the ledger has no record
// can't be found: Stripe lists no customers of a meter.
//
// It makes one request per customer and meter, at most 10 a second in live mode and 4
// in test mode. Stripe allows reads in proportion to payments (500 a payment in 30
// days, at least 10,000 a month), so once a day will do. The account's meters are
// remembered for 10 minutes.
//
// Blocking: until all are read or ctx ends; 10,000 customers take about 20 minutes.
//
// Errors: the configuration's; no list of meters; the end of ctx, with the lines that
// were read till then. A customer whose total can't be read is a line with an error,
// and the others go on. No error holds the key.
func (s *Sink) Reconcile(ctx context.Context, records iter.Seq2[sink.Record, sink.Outcome], start, end time.Time) (Reconciliation, error) {
	start, end = wholeMinutes(start, end)
	done := Reconciliation{Start: start, End: end}
	switch {
	case s.faults != nil:
		return done, s.faults
	case !end.After(start):
		return done, fmt.Errorf("stripesink: no time lies between %v and %v: end must be after start", start, end)
	}
	meters, err := listMeters(ctx, s.meters)
	if err != nil {
		return done, err
	}
	s.known.keep(meters)
	tallies := s.tally(ctx, records, meters, start, end)
	pace := rate.NewLimiter(testReads, 1)
	if stripeapi.Live(s.cfg.Key) {
		pace.SetLimit(liveReads)
	}
	for _, t := range tallies {
		line := t.line()
		if err == nil && t.err == nil {
			err = pace.Wait(ctx)
		}
		switch {
		case t.err != nil:
			line.Err = t.err
		case err != nil:
			line.Err = fmt.Errorf("stripesink: not read: %w", err)
		default:
			line.Billed, line.Err = s.billed(ctx, t, start, end)
		}
		if line.Err == nil {
			line.Difference = line.Billed - line.Delivered
		}
		done.Lines = append(done.Lines, line)
	}
	if err != nil {
		return done, fmt.Errorf("stripesink: reconciling: %w", err)
	}
	return done, ctx.Err()
}

func (s *Sink) billed(ctx context.Context, t *tally, start, end time.Time) (int64, error) {
	total, err := s.total(ctx, t.meter, t.customer, start, end)
	if err != nil {
		return 0, err
	}
	return units(total)
}

// tally is what the ledger has of one customer and meter.
type tally struct {
	meter                   *stripe.BillingMeter
	customer                string
	err                     error // why Stripe can't be asked
	features                []string
	delivered, open, voided fold
}

// tally adds up records by customer and meter; what can't be asked for stands by
// subject and feature. The result is sorted.
func (s *Sink) tally(ctx context.Context, records iter.Seq2[sink.Record, sink.Outcome], meters map[string]*stripe.BillingMeter, start, end time.Time) []*tally {
	type account struct{ eventName, unbilled, customer string }
	all, customers := map[account]*tally{}, map[string]string{}
	for r, outcome := range records {
		at := timestamp(r)
		if at < start.Unix() || at >= end.Unix() {
			continue
		}
		if _, known := customers[r.Subject]; !known {
			customers[r.Subject] = r.Subject // where it leads to nobody, newTally says why
			if id, err := s.customer(ctx, r.Subject); err == nil {
				customers[r.Subject] = id
			}
		}
		r.Subject = customers[r.Subject]
		key := account{eventName: s.cfg.Meters[r.Feature].EventName, customer: r.Subject}
		if key.eventName == "" {
			key.unbilled = r.Feature
		}
		t := all[key]
		if t == nil {
			t = s.newTally(ctx, r, meters[key.eventName])
			all[key] = t
		}
		if !slices.Contains(t.features, r.Feature) {
			t.features = append(t.features, r.Feature)
		}
		t.add(at, r.Quantity, outcome)
	}
	tallies := make([]*tally, 0, len(all))
	for _, t := range all {
		slices.Sort(t.features)
		tallies = append(tallies, t)
	}
	slices.SortFunc(tallies, func(a, b *tally) int {
		return cmp.Or(slices.Compare(a.features, b.features), cmp.Compare(a.customer, b.customer))
	})
	return tallies
}

func (s *Sink) newTally(ctx context.Context, r sink.Record, m *stripe.BillingMeter) *tally {
	t := &tally{meter: m, customer: r.Subject}
	if want, ok := s.cfg.Meters[r.Feature]; !ok {
		t.err = errNoMeter(r.Feature)
	} else if m == nil {
		t.err = s.errMissingMeter(r.Feature, want.EventName)
	} else if !foldable(m) {
		t.err = fmt.Errorf("stripesink: meter %q has formula %q, to which no total of quantities compares",
			stripeapi.Clean(m.EventName, s.cfg.Key), formula(m))
	} else {
		_, t.err = s.customer(ctx, r.Subject)
	}
	return t
}

func (t *tally) add(at, quantity int64, outcome sink.Outcome) {
	switch outcome {
	case sink.Delivered:
		t.delivered.add(t.meter, at, quantity)
	case sink.Voided:
		t.voided.add(t.meter, at, quantity)
	case sink.Superseded: // never sent, and never to be
	default:
		t.open.add(t.meter, at, quantity)
	}
}
