package stripesink

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// operatorDelay is how long a route rests when only a person can help: a wrong
// key, a missing permission, a wrong URL.
const operatorDelay = time.Minute

// answer is all that is known of one request after it ended.
type answer struct {
	*stripeapi.Exchange
	err    error  // of the SDK
	object string // that the answer says it is
	made   thing  // that it must be
	at     int64  // the second that the record was sent for
	id     string // of the record
	key    string // not to be shown
}

// thing is what Stripe makes of a record.
type thing struct {
	object string        // its name for it
	ahead  time.Duration // how far its second may be ahead of Stripe's clock
}

var (
	meterEvent  = thing{"billing.meter_event", 5 * time.Minute}
	usageRecord = thing{"usage_record", 0}
)

var (
	// errLate wraps what Stripe says of a second before the running period.
	errLate = fmt.Errorf("%w: too late for its billing period", sink.ErrRejected)
	// errCanceled wraps what Stripe says of a canceled subscription's item.
	errCanceled = fmt.Errorf("%w: nothing to bill it by any more", sink.ErrRejected)
	// errGone wraps what Stripe says of a subscription item that it has no more.
	errGone = fmt.Errorf("%w: nowhere to bill it", sink.ErrNotApplied)
)

// classify judges by evidence: what left, and which complete answer came back. The
// SDK's error alone tells less, for it takes a proxy's page for a network error
// and a redirect for success. halt says that other records would fare no better.
func classify(a answer) (err error, halt bool) {
	switch {
	case !a.Sent:
		return a.notApplied("not sent: " + a.text()), true
	case a.Status == 0:
		return a.doubt("no answer: " + a.text()), true
	case !a.Complete:
		return a.doubt("the answer broke off: " + a.text()), true
	case a.HTML():
		return a.doubt("the answer is a web page, so not Stripe's"), true
	case a.Status >= 200 && a.Status < 300:
		if a.err != nil || a.object != a.made.object {
			// A proxy says 200, too. If it was Stripe after all, it takes the same
			// once more for what it is.
			return a.doubt("the answer is no " + a.made.object + ", so perhaps not Stripe's"), true
		}
		return nil, false
	}
	refusal, ok := errors.AsType[*stripe.Error](a.err)
	if !ok {
		return a.doubt("the answer is not Stripe's"), true
	}
	return a.refused(refusal)
}

// refused judges an error that Stripe itself answered.
func (a answer) refused(e *stripe.Error) (err error, halt bool) {
	said := a.quote(e)
	switch a.Status {
	case http.StatusBadRequest:
		if e.Type != stripe.ErrorTypeInvalidRequest {
			return a.doubt(said), true
		}
		return a.invalid(e, said)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		if a.gone(e) {
			return a.wrap(errGone, said), false
		}
		return sink.RetryAfter(a.notApplied(said), operatorDelay), true
	case http.StatusConflict:
		if e.Code == stripe.ErrorCodeIdempotencyKeyInUse {
			return a.doubt(said), true // a request with this key is running: what of it?
		}
		return a.notApplied(said), false
	case http.StatusTooManyRequests:
		return a.notApplied(said), true
	}
	// What Stripe has stored under the record's key says nothing of how it is now.
	return a.doubt(said), a.Header.Get("Idempotent-Replayed") != "true"
}

// invalid judges a request that Stripe calls invalid.
func (a answer) invalid(e *stripe.Error, said string) (err error, halt bool) {
	if id, exists := existing(e.Msg); exists && a.made == meterEvent {
		if id == a.id {
			return nil, false // an earlier attempt was recorded
		}
		return a.doubt(said), true
	}
	switch {
	case a.gone(e):
		return a.wrap(errGone, said), false
	case a.made == usageRecord && strings.Contains(e.Msg, "has been canceled"): // it has no code
		return a.wrap(errCanceled, said), false
	case !complainsOfTime(e):
		return a.wrap(sink.ErrRejected, said), false
	}
	if wait := a.early(); wait > 0 {
		return sink.RetryAfter(a.notApplied(said+a.skew()), wait), true // so would be all others
	}
	if a.made == usageRecord {
		return a.wrap(errLate, said+a.skew()), false
	}
	return a.wrap(sink.ErrRejected, said+a.skew()), false
}

// gone reports whether Stripe has no such subscription item.
func (a answer) gone(e *stripe.Error) bool {
	return a.made == usageRecord && e.Code == stripe.ErrorCodeResourceMissing
}

// existing finds the identifier in "An event already exists with identifier X."
// Stripe gives this refusal no code of its own.
func existing(message string) (id string, ok bool) {
	_, id, ok = strings.Cut(message, "already exists with identifier ")
	return strings.Trim(id, " .'\"`"), ok
}

func (a answer) notApplied(what string) error { return a.wrap(sink.ErrNotApplied, what) }

var errDoubt = errors.New("in doubt")

func (a answer) doubt(what string) error { return a.wrap(errDoubt, what) }

func (a answer) wrap(outcome error, what string) error {
	err := fmt.Errorf("%w: stripesink: record %s: %s", outcome, a.id, what)
	if a.Status != 0 {
		err = fmt.Errorf("%w (status %d)", err, a.Status)
	}
	return pause(err, a.RetryAfter())
}

// pause adds the wish to wait for d to err, if there is one.
func pause(err error, d time.Duration) error {
	if d <= 0 {
		return err
	}
	return sink.RetryAfter(err, d)
}

// text is the SDK's error without secrets.
func (a answer) text() string {
	if a.err == nil {
		return "no error"
	}
	return stripeapi.Clean(a.err.Error(), a.key)
}

// quote is Stripe's own words without secrets.
func (a answer) quote(e *stripe.Error) string {
	text := fmt.Sprintf("%s: %s", e.Type, e.Msg)
	if e.Code != "" {
		text = fmt.Sprintf("%s (%s): %s", e.Type, e.Code, e.Msg)
	}
	return stripeapi.Clean(text, a.key)
}

func isNotApplied(err error) bool { return errors.Is(err, sink.ErrNotApplied) }
