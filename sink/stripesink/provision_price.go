package stripesink

import (
	"fmt"

	"github.com/stripe/stripe-go/v76"
)

// priceParams are what makes the price of a feature; meterID is "" for a legacy one.
func (p *provisioner) priceParams(feature, meterID string) *stripe.PriceParams {
	t := p.cfg.Tariffs[feature]
	params := &stripe.PriceParams{
		Currency:  stripe.String(p.cfg.Currency),
		LookupKey: stripe.String(t.LookupKey),
		Nickname:  stripe.String(feature),
		Product:   stripe.String(p.cfg.Product.ID),
		Recurring: &stripe.PriceRecurringParams{
			Interval:  stripe.String(t.Interval),
			UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeMetered)),
		},
	}
	if t.legacy() {
		params.Recurring.AggregateUsage = stripe.String(string(t.Aggregate))
	} else {
		params.Recurring.Meter = stripe.String(meterID)
	}
	if t.License != "" {
		params.Metadata = map[string]string{metadataLicense: compact(t.License)}
	}
	params.BillingScheme = stripe.String(string(t.scheme()))
	if len(t.Tiers) == 0 {
		params.UnitAmountDecimal = stripe.Float64(amount(t.UnitAmount))
		return params
	}
	params.TiersMode = stripe.String(string(t.tiersMode()))
	for _, tier := range t.Tiers {
		tp := &stripe.PriceTierParams{UnitAmountDecimal: stripe.Float64(amount(tier.UnitAmount))}
		if tier.FlatAmount != "" {
			tp.FlatAmountDecimal = stripe.Float64(amount(tier.FlatAmount))
		}
		if tier.UpTo == 0 {
			tp.UpToInf = stripe.Bool(true)
		} else {
			tp.UpTo = stripe.Int64(tier.UpTo)
		}
		params.Tiers = append(params.Tiers, tp)
	}
	return params
}

func (t Tariff) scheme() stripe.PriceBillingScheme {
	if len(t.Tiers) == 0 {
		return stripe.PriceBillingSchemePerUnit
	}
	return stripe.PriceBillingSchemeTiered
}

func (t Tariff) tiersMode() stripe.PriceTiersMode {
	switch {
	case len(t.Tiers) == 0:
		return ""
	case t.Volume:
		return stripe.PriceTiersModeVolume
	}
	return stripe.PriceTiersModeGraduated
}

// comparePrice tells what of a price would bill otherwise; m is the feature's meter,
// nil if there is none.
func (p *provisioner) comparePrice(d *differences, t Tariff, m *stripe.BillingMeter, is *stripe.Price) {
	d.mode(is.Livemode)
	if !is.Active {
		d.add("it is archived")
	}
	if is.Product == nil || is.Product.ID != p.cfg.Product.ID {
		d.add("it belongs to another product than %s", p.cfg.Product.ID)
	}
	differs(d, "currency", string(is.Currency), p.cfg.Currency)
	if !sameJSON(is.Metadata[metadataLicense], t.License) {
		d.add("its metadata %s is %q, not %q", metadataLicense, is.Metadata[metadataLicense], compact(t.License))
	}
	if is.TransformQuantity != nil {
		d.add("it has transform_quantity: quantities would be divided")
	}
	t.compareRecurring(d, m, is.Recurring)
	differs(d, "billing_scheme", is.BillingScheme, t.scheme())
	if is.BillingScheme == t.scheme() {
		t.compareAmounts(d, is)
	}
}

func (t Tariff) compareRecurring(d *differences, m *stripe.BillingMeter, is *stripe.PriceRecurring) {
	if is == nil {
		d.add("it is for a single payment, not recurring")
		return
	}
	differs(d, "usage_type", is.UsageType, stripe.PriceRecurringUsageTypeMetered)
	differs(d, "interval", string(is.Interval), t.Interval)
	differs(d, "interval_count", is.IntervalCount, 1)
	switch {
	case t.legacy():
		differs(d, "meter", is.Meter, "")
		differs(d, "aggregate_usage", string(is.AggregateUsage), string(t.Aggregate))
	case m == nil:
		d.add("it belongs to meter %q, and there is no meter of event name %q", is.Meter, t.Meter.EventName)
	default:
		differs(d, "meter", is.Meter, m.ID)
	}
}

func (t Tariff) compareAmounts(d *differences, is *stripe.Price) {
	if len(t.Tiers) == 0 {
		differs(d, "unit_amount_decimal", is.UnitAmountDecimal, amount(t.UnitAmount))
		return
	}
	differs(d, "tiers_mode", is.TiersMode, t.tiersMode())
	differs(d, "number of tiers", len(is.Tiers), len(t.Tiers))
	if len(is.Tiers) != len(t.Tiers) {
		return
	}
	for i, want := range t.Tiers {
		tier, name := is.Tiers[i], fmt.Sprintf("tiers[%d].", i)
		if tier == nil {
			tier = &stripe.PriceTier{}
		}
		differs(d, name+"up_to", tier.UpTo, want.UpTo)
		differs(d, name+"unit_amount_decimal", tier.UnitAmountDecimal, amount(want.UnitAmount))
		differs(d, name+"flat_amount_decimal", tier.FlatAmountDecimal, amount(want.FlatAmount))
	}
}
