package stripesink

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"

	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

var customerID = regexp.MustCompile(`^cus_[A-Za-z0-9_]{1,250}$`)

// newEvent makes the meter event of a record: the same one on every attempt. It
// rejects what Stripe would refuse, and above all what Stripe would accept and
// then bill to nobody.
func newEvent(m Meter, r sink.Record, customer string) (*stripe.BillingMeterEventParams, error) {
	reject := func(format string, args ...any) (*stripe.BillingMeterEventParams, error) {
		return nil, fmt.Errorf("%w: stripesink: not sent: %s", sink.ErrRejected, fmt.Sprintf(format, args...))
	}
	switch {
	case r.ID == "" || len(r.ID) > maxName:
		return reject("the record's ID has %d characters; Stripe takes 1 to %d", len(r.ID), maxName)
	case r.Kind != sink.Sum && r.Kind != sink.Last:
		return reject("a billing meter can't bill kind %v of feature %q; only sum and last", r.Kind, r.Feature)
	case r.Kind == sink.Sum && r.Quantity <= 0:
		return reject("quantity %d of feature %q is not above 0", r.Quantity, r.Feature)
	case r.Quantity < 0:
		return reject("the level %d of feature %q is below 0", r.Quantity, r.Feature)
	case r.Kind == sink.Last && len(r.Dimensions) > 0:
		return reject("feature %q of kind last has dimensions, and a meter keeps one level for each customer: the last of the series would overwrite the others; declare a feature of its own for each", r.Feature)
	}
	payload := make(map[string]string, len(r.Dimensions)+2)
	for name, value := range r.Dimensions {
		if name == m.CustomerKey || name == m.ValueKey {
			return reject("dimension %q of feature %q has the name of a payload key that the meter reserves; rename the dimension", name, r.Feature)
		}
		if err := checkPayloadKey(name); err != nil {
			return reject("the name of a dimension of feature %q %v", r.Feature, err)
		}
		payload[name] = value
	}
	payload[m.CustomerKey] = customer
	payload[m.ValueKey] = strconv.FormatInt(r.Quantity, 10)
	return &stripe.BillingMeterEventParams{
		EventName:  stripe.String(m.EventName),
		Identifier: stripe.String(r.ID),
		Payload:    payload,
		Timestamp:  stripe.Int64(timestamp(r)),
	}, nil
}

// timestamp is the last whole second of the record's window. The first would put
// a new customer's first usage before the subscription that starts within the
// same window, where Stripe bills it to nobody. For a level it is the moment at
// which it held, and in the hour or day that a pre-aggregated meter keeps it for.
//
// It is not held back to now while a window is younger than its last second: it
// would differ from attempt to attempt, and Stripe takes it 5 minutes ahead.
func timestamp(r sink.Record) int64 {
	return max(r.End.Unix()-1, r.Start.Unix())
}

// idempotencyKey is the record's ID on the first attempt and a fresh key on later
// ones: the answer stored under the first may be a 500, which Stripe would replay
// all day. The identifier is what protects those attempts.
func idempotencyKey(r sink.Record) *string {
	if r.Attempt <= 1 {
		return stripe.String(r.ID)
	}
	return stripe.String(r.ID + "-" + rand.Text())
}
