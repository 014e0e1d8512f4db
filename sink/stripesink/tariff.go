package stripesink

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/stripe/stripe-go/v76"
)

// Tariff says what a feature costs, and how a period's usage becomes one quantity.
// UnitAmount or Tiers is required.
//
// Amounts are decimal numbers in the currency's minor unit, with up to 12 decimals
// and 15 digits in all: "25" in "usd" is a quarter of a dollar, "0.5" half a cent.
//
// Concurrency: a plain value.
type Tariff struct {
	// Meter is the billing meter that counts the usage. The zero Meter: none, but a
	// legacy metered price, which usage records feed.
	Meter Meter

	// TimeWindow within which Meter keeps only the last event: see the package's
	// comment on levels. "": it keeps all. It can't be changed later.
	TimeWindow TimeWindow

	// Aggregate is how usage becomes one quantity. "": AggregateSum. A billing meter
	// knows AggregateSum and AggregateLast, a legacy price all.
	Aggregate Aggregate

	// UnitAmount is what a unit costs; "0" is free. Empty where there are Tiers.
	UnitAmount string

	// Tiers make the amount depend on the quantity, from the first unit up; the last
	// one, and no other, has no end.
	Tiers []Tier

	// Volume prices the whole quantity by the tier that it reaches. false: graduated,
	// where each tier prices the units within it.
	Volume bool

	// Interval is the billing period: "day", "week", "month" or "year". "": "month".
	Interval string

	// LookupKey finds the price; it is unique in the account. "": the product's ID, a
	// hyphen, and the feature.
	LookupKey string

	// License is a JSON object with the properties of the license key that a
	// subscription yields, such as {"F3":true,"MaxNoOfMachines":1}, at most 500
	// bytes. It becomes the metadata field skm, where Cryptolens reads it. "": none.
	License string
}

// Tier is a range of quantities. An amount that is empty is 0.
//
// Concurrency: a plain value.
type Tier struct {
	UpTo       int64  // the tier's last unit; 0: no end
	UnitAmount string // for each unit
	FlatAmount string // once, for the tier as a whole
}

// Aggregate is how Stripe makes one quantity of a period's usage.
//
// Concurrency: a plain value.
type Aggregate string

const (
	AggregateSum      Aggregate = "sum"                // of all that was used; "", too
	AggregateMax      Aggregate = "max"                // the highest level of the period
	AggregateLast     Aggregate = "last_during_period" // the period's last level; on a meter, formula last
	AggregateLastEver Aggregate = "last_ever"          // the last level, also that of an earlier period
)

// TimeWindow is a span of UTC time within which a billing meter keeps only the last
// event.
//
// Concurrency: a plain value.
type TimeWindow string

const (
	HourWindow TimeWindow = "hour"
	DayWindow  TimeWindow = "day"
)

func (t Tariff) withDefaults(lookupKey string) Tariff {
	t.Aggregate = cmp.Or(t.Aggregate, AggregateSum)
	t.Interval = cmp.Or(t.Interval, string(stripe.PriceRecurringIntervalMonth))
	t.LookupKey = cmp.Or(t.LookupKey, lookupKey)
	if !t.legacy() {
		t.Meter = t.Meter.withDefaults()
	}
	return t
}

func (t Tariff) legacy() bool { return t.Meter == (Meter{}) }

// formula is the meter's, in Stripe's word.
func (t Tariff) formula() string {
	if t.Aggregate == AggregateLast {
		return string(formulaLast)
	}
	return string(t.Aggregate)
}

// Limits of Stripe, in characters or bytes.
const (
	maxLookupKey = 200
	maxMetadata  = 500
)

func (t Tariff) validate(field string, fault func(string, error)) {
	if !t.legacy() {
		t.Meter.validate(field+".Meter", fault)
	}
	fault(field+".TimeWindow", t.checkTimeWindow())
	fault(field+".Aggregate", t.checkAggregate())
	switch t.Interval {
	case "day", "week", "month", "year":
	default:
		fault(field+".Interval", fmt.Errorf(`is %q: use "day", "week", "month" or "year"`, t.Interval))
	}
	if n := len([]rune(t.LookupKey)); n > maxLookupKey {
		fault(field+".LookupKey", fmt.Errorf("has %d characters: Stripe takes at most %d", n, maxLookupKey))
	}
	if t.License != "" {
		fault(field+".License", checkLicense(t.License))
	}
	t.checkAmounts(field, fault)
}

func (t Tariff) checkTimeWindow() error {
	switch {
	case t.TimeWindow != "" && t.TimeWindow != HourWindow && t.TimeWindow != DayWindow:
		return fmt.Errorf("is %q: use HourWindow, DayWindow, or leave it empty", string(t.TimeWindow))
	case t.TimeWindow != "" && t.legacy():
		return errors.New("is set without Meter: only billing meters have one")
	}
	return nil
}

func (t Tariff) checkAggregate() error {
	switch t.Aggregate {
	case AggregateSum, AggregateLast:
		return nil
	case AggregateMax, AggregateLastEver:
		if t.legacy() {
			return nil
		}
		return fmt.Errorf("is %q, which no billing meter knows: use AggregateSum or AggregateLast, or no Meter", string(t.Aggregate))
	}
	return fmt.Errorf("is %q: use one of the constants", string(t.Aggregate))
}

func (t Tariff) checkAmounts(field string, fault func(string, error)) {
	amount := func(field, text string) {
		if _, err := parseAmount(text); err != nil {
			fault(field, err)
		}
	}
	switch {
	case len(t.Tiers) == 0 && t.UnitAmount == "":
		fault(field+".UnitAmount", errors.New(`is empty, and there are no Tiers: say what a unit costs, "0" if nothing`))
	case len(t.Tiers) == 0:
		amount(field+".UnitAmount", t.UnitAmount)
		if t.Volume {
			fault(field+".Volume", errors.New("is set without Tiers"))
		}
	case t.UnitAmount != "":
		fault(field+".UnitAmount", errors.New("is set, and Tiers, too: put it into the tiers"))
	}
	var before int64
	for i, tier := range t.Tiers {
		field := fmt.Sprintf("%s.Tiers[%d]", field, i)
		last := i == len(t.Tiers)-1
		switch {
		case last && tier.UpTo != 0:
			fault(field+".UpTo", fmt.Errorf("is %d: the last tier has no end, which is 0", tier.UpTo))
		case !last && tier.UpTo <= before:
			fault(field+".UpTo", fmt.Errorf("is %d: it must be above %d, where the tier begins", tier.UpTo, before))
		}
		before = tier.UpTo
		amount(field+".UnitAmount", cmp.Or(tier.UnitAmount, "0"))
		amount(field+".FlatAmount", cmp.Or(tier.FlatAmount, "0"))
	}
}

var decimal = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,12})?$`)

// parseAmount reads a decimal amount. With at most 15 digits a float64 holds it
// exactly, and so the SDK sends and reads it.
func parseAmount(text string) (float64, error) {
	if !decimal.MatchString(text) || len(strings.TrimLeft(strings.ReplaceAll(text, ".", ""), "0")) > 15 {
		return 0, fmt.Errorf(`is %q: use a decimal number of the currency's minor unit, such as "25" or "0.5", with at most 12 digits before the point, 12 decimals, and 15 digits in all`, text)
	}
	return strconv.ParseFloat(text, 64)
}

// amount is a checked amount; an empty one is 0.
func amount(text string) float64 {
	value, _ := parseAmount(cmp.Or(text, "0")) // validate has seen it
	return value
}

func checkLicense(text string) error {
	var object map[string]json.RawMessage
	switch err := json.Unmarshal([]byte(text), &object); {
	case err != nil || object == nil:
		return errors.New(`is no JSON object: write it like {"F3":true,"MaxNoOfMachines":1}`)
	case len(compact(text)) > maxMetadata:
		return fmt.Errorf("has %d bytes: Stripe takes at most %d in a metadata field", len(compact(text)), maxMetadata)
	}
	return nil
}

func compact(text string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(text)) != nil {
		return text
	}
	return b.String()
}

// sameJSON reports whether two texts are one JSON value, whatever the order of its
// fields.
func sameJSON(a, b string) bool {
	canonical := func(text string) string {
		var value any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&value) != nil {
			return text
		}
		out, err := json.Marshal(value)
		if err != nil {
			return text
		}
		return string(out)
	}
	return a == b || a != "" && b != "" && canonical(a) == canonical(b)
}
