package stripetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	p.check()
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
	p.check()
	added := &price{p, s.now()}
	s.prices.add(p.ID, added)
	return added
}

func (p Price) check() {
	must("Price.UsageType", p.UsageType, "metered", "licensed")
	must("Price.Aggregate", p.Aggregate, "", "sum", "max", "last_during_period", "last_ever")
	must("Price.Interval", p.Interval, "day", "week", "month", "year")
	must("Price.TiersMode", p.TiersMode, "", "graduated", "volume")
	if !p.shortEnough() {
		panic("stripetest: a price's interval is at most three years")
	}
	for _, decimal := range append(amountsOf(p.Tiers), p.UnitAmount) {
		if decimal != "" && !decimalShape.MatchString(decimal) {
			panic(fmt.Sprintf("stripetest: amount %q of a price is no decimal number", decimal))
		}
	}
}

// shortEnough tells whether the interval is one that Stripe takes.
func (p Price) shortEnough() bool {
	most := map[string]int64{"day": 1095, "week": 156, "month": 36, "year": 3}[p.Interval]
	return p.IntervalCount >= 1 && p.IntervalCount <= most
}

func amountsOf(tiers []Tier) (all []string) {
	for _, t := range tiers {
		all = append(all, t.UnitAmount, t.FlatAmount)
	}
	return all
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
