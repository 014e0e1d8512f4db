package stripesink

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
)

// tolerated is how far two clocks may be apart without being mentioned.
const tolerated = time.Minute

// complainsOfTime reports whether Stripe refuses a timestamp. It has no code for that.
func complainsOfTime(e *stripe.Error) bool {
	return e.Param == "timestamp" || strings.Contains(e.Msg, "timestamp")
}

// early is how long it takes until Stripe's clock, as the answer's date shows it, lets
// the record's second pass: above 0, this machine's clock is ahead. An answer without a
// date explains nothing.
func (a answer) early() time.Duration {
	date, ok := a.date()
	if !ok {
		return 0
	}
	return min(time.Unix(a.at, 0).Add(-a.made.ahead).Sub(date), stripeapi.MaxDelay)
}

// skew says how far this machine's clock is off, if it matters.
func (a answer) skew() string {
	date, ok := a.date()
	off := time.Since(date).Round(time.Second)
	switch {
	case !ok || off.Abs() < tolerated:
		return ""
	case off > 0:
		return fmt.Sprintf("; this machine's clock is %v ahead of Stripe's: set it right", off)
	}
	return fmt.Sprintf("; this machine's clock is %v behind Stripe's: set it right", -off)
}

// date is when Stripe answered, by its own clock.
func (a answer) date() (time.Time, bool) {
	at, err := http.ParseTime(a.Header.Get("Date"))
	return at, err == nil
}
