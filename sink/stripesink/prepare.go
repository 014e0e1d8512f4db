package stripesink

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// Prepare asks Stripe for its billing meters and checks the one of each feature:
// that it exists, is active, adds up values, has no time window within which the
// last event wins, and finds customer and value under the configured keys.
//
// Blocking: one request per 100 meters of the account, within ctx.
//
// Errors: a [*sink.BatchError] with an entry per feature that names what to
// change; one error if the meters can't be had. No error holds the key.
func (s *Sink) Prepare(ctx context.Context, features []sink.Feature) error {
	if s.faults != nil {
		return s.faults
	}
	meters, err := s.listMeters(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(features))
	for i, f := range features {
		errs[i] = s.prepare(f, meters)
	}
	if errors.Join(errs...) == nil {
		return nil
	}
	return &sink.BatchError{Errs: errs}
}

// listMeters returns the account's meters by event name; of several with one
// name, which can only be archived ones beside at most one active, the active.
func (s *Sink) listMeters(ctx context.Context) (map[string]*stripe.BillingMeter, error) {
	meters, last := map[string]*stripe.BillingMeter{}, ""
	for range maxPages {
		page, err := s.listPage(ctx, last)
		if err != nil {
			return nil, err
		}
		last = ""
		for _, m := range page.Data {
			if m == nil {
				continue
			}
			last = m.ID
			if known := meters[m.EventName]; known == nil || known.Status != stripe.BillingMeterStatusActive {
				meters[m.EventName] = m
			}
		}
		if !page.HasMore || last == "" {
			return meters, nil
		}
	}
	return nil, fmt.Errorf("stripesink: the account lists more than %d billing meters: not all were checked", maxPages*100)
}

func (s *Sink) listPage(ctx context.Context, after string) (page *stripe.BillingMeterList, err error) {
	err = s.getList(ctx, "listing the billing meters", "read access to billing meters", func(ctx context.Context) error {
		params := &stripe.BillingMeterListParams{}
		params.Context, params.Single, params.Limit = ctx, true, stripe.Int64(100)
		if after != "" {
			params.StartingAfter = stripe.String(after)
		}
		list := s.meters.List(params)
		page = list.BillingMeterList()
		return list.Err()
	})
	return page, err
}

// prepare checks the meter of one feature.
func (s *Sink) prepare(f sink.Feature, meters map[string]*stripe.BillingMeter) error {
	want, ok := s.cfg.Meters[f.Name]
	if !ok {
		return errNoMeter(f.Name)
	}
	var faults []error
	fault := func(format string, args ...any) {
		text := stripeapi.Clean(fmt.Sprintf(format, args...), s.cfg.Key)
		faults = append(faults, fmt.Errorf("stripesink: feature %q, Stripe meter %q: %s", f.Name, want.EventName, text))
	}
	if f.Kind != sink.Sum {
		fault("a billing meter adds up, so it can't bill kind %v: declare the feature as sum, or bill it elsewhere", f.Kind)
	}
	m, ok := meters[want.EventName]
	switch {
	case !ok:
		fault("there is none of this event name: create it, or correct Config.Meters[%q].EventName", f.Name)
		return errors.Join(faults...)
	case m.Status != stripe.BillingMeterStatusActive:
		fault("it is %s: reactivate it", m.Status)
	}
	if formula := formula(m); formula != stripe.BillingMeterDefaultAggregationFormulaSum {
		fault("its formula is %q, which would not add up quantities: use a meter with default_aggregation.formula sum", formula)
	}
	if m.EventTimeWindow != "" {
		fault("it keeps only the last event of each %s: use a meter without event_time_window", m.EventTimeWindow)
	}
	if key := customerKey(m); key != want.CustomerKey {
		fault("it finds the customer under %q, not %q: correct Config.Meters[%q].CustomerKey", key, want.CustomerKey, f.Name)
	}
	if key := valueKey(m); key != want.ValueKey {
		fault("it finds the value under %q, not %q: correct Config.Meters[%q].ValueKey", key, want.ValueKey, f.Name)
	}
	return errors.Join(faults...)
}

func formula(m *stripe.BillingMeter) stripe.BillingMeterDefaultAggregationFormula {
	if m.DefaultAggregation == nil {
		return ""
	}
	return m.DefaultAggregation.Formula
}

func customerKey(m *stripe.BillingMeter) string {
	if m.CustomerMapping == nil {
		return ""
	}
	return m.CustomerMapping.EventPayloadKey
}

func valueKey(m *stripe.BillingMeter) string {
	if m.ValueSettings == nil {
		return ""
	}
	return m.ValueSettings.EventPayloadKey
}
