package stripesink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/metereventsummary"
)

// maxExact is the highest number up to which a float64, which Stripe's totals are,
// tells every whole number from its neighbors.
const maxExact = 1 << 53

// Usage is what Stripe's meter holds for a subject in [start, end), widened to whole
// minutes, which are the finest that Stripe tells: start is rounded down, end up.
// Features that share a meter share its total.
//
// It is what Stripe will bill, not what it has accepted, and it comes late: Stripe
// states no bound. The account's meters are remembered for 10 minutes.
//
// Blocking: one or two requests as a rule, at most 20 s each, within ctx.
//
// Errors: the configuration's, a feature without a meter, a subject that is no
// customer or leads to none ([ErrNotFound]) or several ([ErrAmbiguous]), a total that
// is no whole number or too large to be exact, and those of the requests. No error
// holds the key.
func (s *Sink) Usage(ctx context.Context, feature, subject string, start, end time.Time) (int64, error) {
	if s.faults != nil {
		return 0, s.faults
	}
	customer, err := s.customer(ctx, subject)
	if err != nil {
		return 0, err
	}
	m, err := s.meterOf(ctx, feature)
	if err != nil {
		return 0, err
	}
	start, end = wholeMinutes(start, end)
	total, err := s.total(ctx, m, customer, start, end)
	if err != nil {
		return 0, err
	}
	return units(total)
}

// customer is whom Stripe bills for a subject.
func (s *Sink) customer(ctx context.Context, subject string) (string, error) {
	switch {
	case customerID.MatchString(subject):
		return subject, nil
	case s.cfg.SubjectMetadata != "":
		return s.payers.customer(ctx, subject)
	}
	return "", fmt.Errorf(`%w: stripesink: subject %q is no Stripe customer ID ("cus_…"), so Stripe would take the usage and bill nobody; identify callers by their customer ID, or set Config.SubjectMetadata`,
		sink.ErrRejected, stripeapi.Clean(subject, s.cfg.Key))
}

// wholeMinutes widens [start, end) to whole minutes.
func wholeMinutes(start, end time.Time) (time.Time, time.Time) {
	return start.UTC().Truncate(time.Minute), end.UTC().Add(time.Minute - 1).Truncate(time.Minute)
}

// units turns one of Stripe's totals into whole units.
func units(total float64) (int64, error) {
	if total != math.Trunc(total) || math.Abs(total) > maxExact { // true of NaN, too
		return 0, fmt.Errorf("stripesink: Stripe's total %v is no whole number, or too large to be exact", total)
	}
	return int64(total), nil
}

// errMissing says that Stripe doesn't know a customer, or a meter.
var errMissing = errors.New("there is no such customer or meter")

// total asks for the summary of m for a customer in [start, end), both whole minutes.
// 0 is Stripe's word that there is none, never a want of an answer.
func (s *Sink) total(ctx context.Context, m *stripe.BillingMeter, customer string, start, end time.Time) (total float64, err error) {
	if !end.After(start) {
		return 0, errNoTime(start, end)
	}
	what := fmt.Sprintf("reading what meter %q holds for %s", stripeapi.Clean(m.EventName, s.cfg.Key), customer)
	parts := 0
	err = eachPage("summaries", func(after string) (last string, more bool, err error) {
		var list *metereventsummary.Iter
		a := ask(ctx, s.cfg.Key, func(ctx context.Context) error {
			list = s.summaries.List(&stripe.BillingMeterEventSummaryListParams{
				ListParams: pageParams(ctx, after), ID: stripe.String(m.ID), Customer: stripe.String(customer),
				StartTime: stripe.Int64(start.Unix()), EndTime: stripe.Int64(end.Unix()),
			})
			return list.Err()
		})
		err = a.needing("read access to billing meters", a.failure(what, "list"))
		switch {
		case err != nil && a.missing():
			return "", false, fmt.Errorf("%w; %w", err, errMissing)
		case err != nil:
			return "", false, err
		}
		for _, part := range list.BillingMeterEventSummaryList().Data {
			if part == nil || part.Meter != m.ID || part.StartTime < start.Unix() || part.EndTime > end.Unix() {
				return "", false, fmt.Errorf("stripesink: %s: the answer is about another meter or time", what)
			}
			total, last, parts = total+part.AggregatedValue, part.ID, parts+1
		}
		if parts > 1 && formula(m) != formulaSum {
			return "", false, fmt.Errorf("stripesink: %s: %d summaries, which a meter of formula %q does not add up", what, parts, formula(m))
		}
		return last, list.Meta().HasMore, nil
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}
