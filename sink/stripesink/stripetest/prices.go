package stripetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Price is a recurring price. The zero value is a metered one that sums usage
// records over a month.
//
// Concurrency: a plain value; treat Tiers and Metadata as read-only.
type Price struct {
	ID            string            // "": made up
	Product       string            // its ID; "": a product is made up
	Currency      string            // "": usd
	UsageType     string            // "": metered, else licensed
	Aggregate     string            // aggregate_usage, of metered prices without Meter; "": sum
	Meter         string            // ID of the billing meter; "": usage records
	Interval      string            // "": month, else day, week, year
	IntervalCount int64             // 0: 1
	UnitAmount    string            // decimal, in the currency's minor unit; "": 0, or Tiers
	Tiers         []Tier            // nil: none
	TiersMode     string            // with Tiers; "": graduated, else volume
	LookupKey     string            // "": none
	Archived      bool              // not active
	Metadata      map[string]string // nil: none
}

// Tier is a part of a price that depends on the quantity. Its amounts are decimal,
// in the currency's minor unit; "": none.
//
// Concurrency: a plain value.
type Tier struct {
	UpTo       int64 // last unit in it; 0: no end
	UnitAmount string
	FlatAmount string
}

type price struct {
	Price
	created time.Time
}

// AddPrice adds a price and returns it as it is now. It panics if the ID is taken.
func (s *Server) AddPrice(p Price) Price {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addPrice(p).Price
}

// ChangePrice changes a price, which must exist.
func (s *Server) ChangePrice(id string, change func(*Price)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.prices.get(id)
	change(&p.Price)
	p.ID = id
}

func (s *Server) addPrice(p Price) *price {
	p.ID = cmp.Or(p.ID, s.newID("price"))
	if p.Product == "" {
		p.Product = s.addProduct(Product{}).ID
	}
	p.Currency = cmp.Or(p.Currency, "usd")
	p.UsageType = cmp.Or(p.UsageType, "metered")
	if p.UsageType == "metered" && p.Meter == "" {
		p.Aggregate = cmp.Or(p.Aggregate, "sum")
	}
	p.Interval, p.IntervalCount = cmp.Or(p.Interval, "month"), cmp.Or(p.IntervalCount, 1)
	p.Tiers, p.Metadata = slices.Clone(p.Tiers), maps.Clone(p.Metadata)
	if p.Tiers == nil {
		p.UnitAmount = cmp.Or(p.UnitAmount, "0")
	} else {
		p.TiersMode = cmp.Or(p.TiersMode, "graduated")
	}
	added := &price{p, s.now()}
	s.prices.add(p.ID, added)
	return added
}

func (s *Server) getPrice(r *request) response {
	p, found := s.prices.byID[r.PathValue("id")]
	if !found {
		return missing("price", r.PathValue("id"), "price")
	}
	return ok(s.priceObject(p))
}

func (s *Server) listPrices(r *request) response {
	keys := r.list("lookup_keys")
	return page(r, s.prices.newest(func(p *price) bool {
		return (keys == nil || slices.Contains(keys, p.LookupKey) && p.LookupKey != "") &&
			matches(r.get("product"), p.Product) && matches(r.get("currency"), p.Currency) &&
			matches(r.get("active"), strconv.FormatBool(!p.Archived)) &&
			matches(r.get("recurring[meter]"), p.Meter) && matches(r.get("recurring[usage_type]"), p.UsageType)
	}), func(p *price) string { return p.ID }, s.priceObject)
}

// matches compares a filter of a list, if it is there.
func matches(filter, value string) bool { return filter == "" || filter == value }

// priceObject leaves out the tiers, as Stripe does unless they are expanded.
func (s *Server) priceObject(p *price) object {
	scheme := "per_unit"
	if p.Tiers != nil {
		scheme = "tiered"
	}
	unit, decimal := amounts(p.UnitAmount)
	return object{
		"id": p.ID, "object": "price", "active": !p.Archived, "billing_scheme": scheme,
		"created": p.created.Unix(), "currency": p.Currency, "livemode": s.Live,
		"lookup_key": orNull(p.LookupKey), "metadata": orEmpty(p.Metadata), "nickname": nil,
		"product": p.Product, "recurring": object{
			"aggregate_usage": orNull(p.Aggregate), "interval": p.Interval, "interval_count": p.IntervalCount,
			"meter": orNull(p.Meter), "trial_period_days": nil, "usage_type": p.UsageType,
		},
		"custom_unit_amount": nil, "tax_behavior": "unspecified", "tiers_mode": orNull(p.TiersMode),
		"transform_quantity": nil, "type": "recurring", "unit_amount": unit, "unit_amount_decimal": decimal,
	}
}

func tierObjects(tiers []Tier) []any {
	all := []any{}
	for _, t := range tiers {
		unit, unitDecimal := amounts(t.UnitAmount)
		flat, flatDecimal := amounts(t.FlatAmount)
		all = append(all, object{
			"flat_amount": flat, "flat_amount_decimal": flatDecimal,
			"unit_amount": unit, "unit_amount_decimal": unitDecimal, "up_to": orNull(t.UpTo),
		})
	}
	return all
}

// amounts is a decimal amount as Stripe writes it: null as whole number if it is none.
func amounts(decimal string) (whole, exact any) {
	if decimal == "" {
		return nil, nil
	}
	if n, err := strconv.ParseInt(decimal, 10, 64); err == nil {
		return n, decimal
	}
	return nil, decimal
}

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
