package stripesink

import (
	"math"

	"github.com/stripe/stripe-go/v76"
)

// fold combines quantities as a Stripe meter does: adding up, or keeping the last of
// all or of each UTC hour or day. The zero value is empty.
type fold struct {
	total  int64
	levels map[int64]level // by window; nil while adding up
}

// level is a quantity that held from a moment on.
type level struct{ at, quantity int64 }

// foldable reports whether fold knows how m combines quantities.
func foldable(m *stripe.BillingMeter) bool {
	sums := formula(m) == formulaSum
	return (sums || formula(m) == formulaLast) && windowSeconds(m) >= 0
}

// windowSeconds is the length of the meter's time window: 0 for none, -1 for one of
// unknown length.
func windowSeconds(m *stripe.BillingMeter) int64 {
	switch m.EventTimeWindow {
	case "":
		return 0
	case stripe.BillingMeterEventTimeWindowHour:
		return 60 * 60
	case stripe.BillingMeterEventTimeWindowDay:
		return 24 * 60 * 60
	}
	return -1
}

// add takes in a quantity of the second at. A nil meter, or one that is not foldable,
// adds up.
func (f *fold) add(m *stripe.BillingMeter, at, quantity int64) {
	if m == nil || !foldable(m) || sumsRaw(m) {
		f.total = plus(f.total, quantity)
		return
	}
	window := int64(0)
	if n := windowSeconds(m); n > 0 {
		window = at / n
	}
	if f.levels == nil {
		f.levels = map[int64]level{}
	}
	if old, ok := f.levels[window]; !ok || at >= old.at {
		f.levels[window] = level{at, quantity}
	}
}

// value is what the meter would show.
func (f *fold) value(m *stripe.BillingMeter) int64 {
	if f.levels == nil {
		return f.total
	}
	var sum int64
	var last level
	for _, l := range f.levels {
		sum = plus(sum, l.quantity)
		if l.at >= last.at {
			last = l
		}
	}
	if formula(m) == formulaLast {
		return last.quantity
	}
	return sum
}

// plus adds quantities, of which none is negative, and stays at the limit.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
