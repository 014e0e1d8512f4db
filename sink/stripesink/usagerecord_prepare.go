package stripesink

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// Prepare asks Stripe for the prices of the features and checks them for what would
// bill wrongly: that each exists, is active and of the key's mode, is metered by usage
// records, and aggregates them as the feature's kind means: Sum by sum, Max by max, Last
// by last_during_period or last_ever. meter.Prepare calls it for the features that are
// declared; call it by itself to check a configuration. Whether a customer's
// subscription has billing thresholds shows only when a record of it is delivered.
//
// Blocking: one request per price, within ctx.
//
// Errors: a [*sink.BatchError] with an entry per feature that names what to change;
// one error if the prices can't be had. No error holds the key.
func (u *UsageRecords) Prepare(ctx context.Context, features []sink.Feature) error {
	if u.faults != nil {
		return u.faults
	}
	errs := make([]error, len(features))
	for i, f := range features {
		prices, ok := u.cfg.Prices[f.Name]
		if !ok {
			errs[i] = errNoPrice(f.Name)
			continue
		}
		var faults []error
		for _, id := range prices {
			p, err := u.price(ctx, id)
			if err != nil {
				return err
			}
			for _, fault := range u.unfit(f.Kind, p) {
				text := stripeapi.Clean(fault, u.cfg.Key)
				faults = append(faults, fmt.Errorf("stripesink: feature %q, Stripe price %s: %s", f.Name, id, text))
			}
		}
		errs[i] = errors.Join(faults...)
	}
	if errors.Join(errs...) == nil {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

// price reads one price; nil if there is none of this ID.
func (u *UsageRecords) price(ctx context.Context, id string) (p *stripe.Price, err error) {
	found, err := u.payers.read(ctx, "reading price "+id, "price", "prices", func(ctx context.Context) (err error) {
		p, err = u.prices.Get(id, &stripe.PriceParams{Params: stripe.Params{Context: ctx}})
		return err
	})
	if !found {
		return nil, err
	}
	return p, err
}

// unfit says why a price would not bill a kind's records as they are meant.
func (u *UsageRecords) unfit(kind sink.Kind, p *stripe.Price) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if p == nil {
		fault("there is none of this ID: create it, or correct UsageRecordsConfig.Prices")
		return faults
	}
	if err := stripeapi.CheckObject(p.Livemode, u.cfg.Key, u.cfg.BaseURL); err != nil {
		fault("%v", err)
	}
	if !p.Active {
		fault("it is archived: activate it, or use another one")
	}
	switch r := p.Recurring; {
	case r == nil:
		fault("it is paid once, whatever is used: use a recurring price of usage_type metered")
	case r.UsageType != stripe.PriceRecurringUsageTypeMetered:
		fault("its usage_type is %q, so a fixed quantity is billed and usage records are refused: use a price of usage_type metered", r.UsageType)
	case r.Meter != "":
		fault("it is billed by billing meter %s, which takes no usage records: bill the feature through New", r.Meter)
	case !aggregated(kind, r.AggregateUsage):
		fault("it bills the %s of a period's usage records, and kind %v needs %s: use another price, or declare the feature as another kind",
			words(r.AggregateUsage), kind, needed(kind))
	}
	if u.cfg.Increment && kind != sink.Sum {
		fault("usage records that are incremented add up, so they can't bill kind %v: use a sink without UsageRecordsConfig.Increment", kind)
	}
	return faults
}

// aggregated reports whether many records of a kind mean what the price makes of them.
func aggregated(kind sink.Kind, by stripe.PriceRecurringAggregateUsage) bool {
	switch kind {
	case sink.Sum:
		return by == stripe.PriceRecurringAggregateUsageSum
	case sink.Max:
		return by == stripe.PriceRecurringAggregateUsageMax
	case sink.Last:
		return by == stripe.PriceRecurringAggregateUsageLastDuringPeriod || by == stripe.PriceRecurringAggregateUsageLastEver
	}
	return false
}

func words(by stripe.PriceRecurringAggregateUsage) string {
	return fmt.Sprintf("%q (aggregate_usage)", string(by))
}

func needed(kind sink.Kind) string {
	switch kind {
	case sink.Sum:
		return "sum"
	case sink.Max:
		return "max"
	case sink.Last:
		return "last_during_period or last_ever"
	}
	return "one that this version doesn't know"
}
