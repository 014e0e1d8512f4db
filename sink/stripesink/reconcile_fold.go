package stripesink

import (
	"math"

	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// way is how Stripe makes one total of many quantities.
type way struct {
	kind   sink.Kind
	window int64 // seconds of UTC of which first the latest quantity stands for all; 0: none
}

// wayOf is that of a meter; false for one that this version doesn't know.
func wayOf(m *stripe.BillingMeter) (w way, ok bool) {
	switch formula(m) {
	case formulaSum:
	case formulaLast:
		w.kind = sink.Last
	default:
		return w, false
	}
	switch m.EventTimeWindow {
	case "":
	case stripe.BillingMeterEventTimeWindowHour:
		w.window = 60 * 60
	case stripe.BillingMeterEventTimeWindowDay:
		w.window = 24 * 60 * 60
	default:
		return w, false
	}
	return w, true
}

// fold is a total in the making. The zero value is 0.
type fold struct {
	total  level
	levels map[int64]level // the latest of each window; nil without windows
}

// level is a quantity that held from a second on.
type level struct{ at, quantity int64 }

// add takes in a quantity of the second at, in any order.
func (f *fold) add(w way, at, quantity int64) {
	if w.window == 0 {
		f.total = f.total.with(w.kind, level{at, quantity})
		return
	}
	if f.levels == nil {
		f.levels = map[int64]level{}
	}
	f.levels[at/w.window] = f.levels[at/w.window].with(sink.Last, level{at, quantity})
}

func (f *fold) value(w way) int64 {
	total := f.total
	for _, l := range f.levels {
		total = total.with(w.kind, l)
	}
	return total.quantity
}

// with combines two quantities, of which none is negative; a sum stays at the limit.
func (l level) with(kind sink.Kind, other level) level {
	switch {
	case kind == sink.Sum && l.quantity > math.MaxInt64-other.quantity:
		return level{quantity: math.MaxInt64}
	case kind == sink.Sum:
		return level{quantity: l.quantity + other.quantity}
	case kind == sink.Max && other.quantity > l.quantity, kind == sink.Last && other.at >= l.at:
		return other
	}
	return l
}
