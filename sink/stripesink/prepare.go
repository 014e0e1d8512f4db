package stripesink

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meter"
)

// Prepare asks Stripe for its billing meters and checks the one of each feature, for
// what would bill wrongly: that it exists, is active and of the key's mode, makes of
// many records what the feature's kind means (see the package's comment on levels),
// and finds customer and value under the configured keys. meter.Prepare calls it for
// the features that are declared; call it by itself to check a configuration.
//
// Blocking: one request per 100 meters of the account, within ctx.
//
// Errors: a [*sink.BatchError] with an entry per feature that names what to
// change; one error if the meters can't be had. No error holds the key.
func (s *Sink) Prepare(ctx context.Context, features []sink.Feature) error {
	if s.faults != nil {
		return s.faults
	}
	meters, err := listMeters(ctx, s.meters)
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
func listMeters(ctx context.Context, client meter.Client) (map[string]*stripe.BillingMeter, error) {
	meters := map[string]*stripe.BillingMeter{}
	err := eachPage("billing meters", func(after string) (last string, more bool, err error) {
		var list *meter.Iter
		a := ask(ctx, client.Key, func(ctx context.Context) error {
			list = client.List(&stripe.BillingMeterListParams{ListParams: pageParams(ctx, after)})
			return list.Err()
		})
		if err := a.needing("read access to billing meters", a.failure("listing the billing meters", "list")); err != nil {
			return "", false, err
		}
		for _, m := range list.BillingMeterList().Data {
			if m == nil {
				continue
			}
			last = m.ID
			if known := meters[m.EventName]; known == nil || known.Status != stripe.BillingMeterStatusActive {
				meters[m.EventName] = m
			}
		}
		return last, list.Meta().HasMore, nil
	})
	return meters, err
}

// prepare checks the meter of one feature.
func (s *Sink) prepare(f sink.Feature, meters map[string]*stripe.BillingMeter) error {
	want, ok := s.cfg.Meters[f.Name]
	if !ok {
		return errNoMeter(f.Name)
	}
	m, ok := meters[want.EventName]
	if !ok {
		return s.unfit(f.Name, []string{fmt.Sprintf("there is none of this event name: create it, or correct Config.Meters[%q].EventName", f.Name)})
	}
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if err := stripeapi.CheckObject(m.Livemode, s.cfg.Key, s.cfg.BaseURL); err != nil {
		fault("%v", err)
	}
	if m.Status != stripe.BillingMeterStatusActive {
		fault("it is %s: reactivate it", m.Status)
	}
	aggregates(f.Kind, m, fault)
	if f.Kind == sink.Last {
		for other, m := range s.cfg.Meters {
			if other != f.Name && m.EventName == want.EventName {
				fault("feature %q has it, too, and the level of one would overwrite that of the other: give each a meter of its own", other)
			}
		}
	}
	if key := customerKey(m); key != want.CustomerKey {
		fault("it finds the customer under %q, not %q: correct Config.Meters[%q].CustomerKey", key, want.CustomerKey, f.Name)
	}
	if key := valueKey(m); key != want.ValueKey {
		fault("it finds the value under %q, not %q: correct Config.Meters[%q].ValueKey", key, want.ValueKey, f.Name)
	}
	return s.unfit(f.Name, faults)
}

// aggregates tells why a meter would not make of a kind's records what they mean.
func aggregates(kind sink.Kind, m *stripe.BillingMeter, fault func(string, ...any)) {
	is, window := formula(m), m.EventTimeWindow
	switch kind {
	case sink.Sum:
		if is != formulaSum {
			fault("its formula is %q, which would not add up quantities: use a meter with default_aggregation.formula sum", is)
		}
		if window != "" {
			fault("it keeps only the last event of each %s, so each record would overwrite the one before: use a meter without event_time_window", window)
		}
	case sink.Last:
		switch {
		case is == formulaLast, is == formulaSum && window != "":
		case is == formulaSum:
			fault("its formula is \"sum\", so the levels of all windows would add up: use one with formula last, or with an event_time_window")
		default:
			fault("its formula is %q, which takes no notice of levels: use a meter with default_aggregation.formula last", is)
		}
	default:
		fault("a billing meter can't bill kind %v: declare the feature as sum or last, or bill it elsewhere", kind)
	}
}

// Of last the SDK has no constant.
const (
	formulaSum  = stripe.BillingMeterDefaultAggregationFormulaSum
	formulaLast = stripe.BillingMeterDefaultAggregationFormula("last")
)

// unfit makes one error of the faults of a feature's meter; nil of none.
func (s *Sink) unfit(feature string, faults []string) error {
	errs := make([]error, len(faults))
	for i, text := range faults {
		errs[i] = fmt.Errorf("stripesink: feature %q, Stripe meter %q: %s",
			feature, s.cfg.Meters[feature].EventName, stripeapi.Clean(text, s.cfg.Key))
	}
	return errors.Join(errs...)
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
