package stripetest

import (
	"fmt"
	"strings"
)

func (s *Server) createPrice(r *request) func() response {
	p := readPrice(r)
	return func() response {
		if bad := s.refusePrice(p); bad != nil {
			return *bad
		}
		return ok(s.priceObject(s.addPrice(p)))
	}
}

// readPrice reads the form of a new price.
func readPrice(r *request) Price {
	r.only("currency", "product", "active", "billing_scheme", "lookup_key", "metadata", "nickname",
		"recurring", "tax_behavior", "tiers", "tiers_mode", "unit_amount", "unit_amount_decimal")
	p := Price{
		Product:       r.required("product"),
		Currency:      strings.ToLower(r.required("currency")),
		Interval:      r.required("recurring[interval]"),
		IntervalCount: r.int("recurring[interval_count]", 1),
		UsageType:     r.oneOf("recurring[usage_type]", "licensed", "metered"),
		Aggregate:     r.oneOf("recurring[aggregate_usage]", "", "sum", "max", "last_during_period", "last_ever"),
		Meter:         r.get("recurring[meter]"),
		UnitAmount:    r.amount("unit_amount"),
		TiersMode:     r.oneOf("tiers_mode", "", "graduated", "volume"),
		LookupKey:     r.get("lookup_key"),
		Archived:      r.oneOf("active", "true", "false") == "false",
		Metadata:      r.dict("metadata"),
	}
	r.oneOf("recurring[interval]", "month", "day", "week", "year")
	r.each("tiers", func(tier string) { p.Tiers = append(p.Tiers, readTier(r, tier)) })
	tiered := r.oneOf("billing_scheme", "per_unit", "tiered") == "tiered"
	switch {
	case !p.shortEnough():
		r.invalid("recurring[interval_count]", "", "The interval must be at most three years.")
	case p.UsageType != "metered" && (p.Aggregate != "" || p.Meter != ""):
		r.invalid("recurring", "", "aggregate_usage and meter are for prices of usage_type metered.")
	case p.Aggregate != "" && p.Meter != "":
		r.invalid("recurring[aggregate_usage]", "", "aggregate_usage can't be set on a price with a meter.")
	case tiered && (p.Tiers == nil || p.TiersMode == "" || p.UnitAmount != ""):
		r.invalid("tiers", "", "A tiered price has tiers and tiers_mode, and no unit_amount.")
	case !tiered && (p.Tiers != nil || p.TiersMode != "" || p.UnitAmount == ""):
		r.invalid("unit_amount", "", "A price per unit has unit_amount or unit_amount_decimal, and no tiers.")
	}
	for i, t := range p.Tiers {
		if last := i == len(p.Tiers)-1; last != (t.UpTo == 0) || i > 0 && !last && t.UpTo <= p.Tiers[i-1].UpTo {
			r.invalid("tiers", "", "The tiers must ascend, and the last one must be up_to inf.")
		}
	}
	return p
}

func readTier(r *request, prefix string) Tier {
	t := Tier{UnitAmount: amountOf(r, prefix, "unit_amount"), FlatAmount: amountOf(r, prefix, "flat_amount")}
	if r.required(prefix+"[up_to]") != "inf" {
		if t.UpTo = r.int(prefix+"[up_to]", 0); t.UpTo < 1 {
			r.invalid(prefix+"[up_to]", "", "up_to must be above 0, or inf.")
		}
	}
	if t.UnitAmount == "" && t.FlatAmount == "" {
		r.invalid(prefix, "", "A tier has unit_amount or flat_amount.")
	}
	return t
}

func amountOf(r *request, prefix, name string) string {
	sub := &params{form: map[string][]string{
		name:              {r.get(fmt.Sprintf("%s[%s]", prefix, name))},
		name + "_decimal": {r.get(fmt.Sprintf("%s[%s_decimal]", prefix, name))},
	}}
	amount := sub.amount(name)
	if sub.bad != nil {
		r.refuse(*sub.bad)
	}
	return amount
}

// refusePrice says what of the account's state is against a new price.
func (s *Server) refusePrice(p Price) *response {
	var bad response
	switch m := s.meters.byID[p.Meter]; {
	case s.products.byID[p.Product] == nil:
		bad = missing("product", p.Product, "product")
	case p.Meter != "" && m == nil:
		bad = missing("meter", p.Meter, "recurring[meter]")
	case p.Meter != "" && m.Status != "active":
		bad = invalid("recurring[meter]", "", "The meter %s is not active.", p.Meter)
	default:
		for _, other := range s.prices.byID {
			if p.LookupKey != "" && other.LookupKey == p.LookupKey {
				bad = invalid("lookup_key", "", "A price (`%s`) already uses that lookup key.", other.ID)
				return &bad
			}
		}
		return nil
	}
	return &bad
}
