package stripesink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

const (
	// adjustment is what Stripe calls the object that cancels an event.
	adjustment = "billing.meter_event_adjustment"
	// cancelable is how long an event is surely within the 24 hours in which Stripe
	// finds it by its identifier, less an hour for clocks that differ.
	cancelable = 23 * time.Hour
)

// Void asks Stripe to cancel a record's event, which it does up to 24 hours after it
// received the event. Nil means that Stripe has accepted this, or that it says that it
// has no such event. The latter counts only for a record used within the last 23
// hours: later Stripe may have forgotten an identifier and billed the event. Let what
// is under way arrive first: an event that Stripe gets after saying so is billed.
//
// Stripe cancels later than it answers, and never on a finalized invoice. What it says
// of an event that it doesn't have, or that was canceled before, is not verified: an
// answer that Void does not know is an error and changes nothing here.
//
// Void can be repeated. It sends the same Idempotency-Key every time, so that a lost
// answer is found again; if that is a stored 500, a fresh one.
//
// Blocking: one request as a rule, at most two of 20 s, within ctx.
//
// Errors: what Stripe answered and what to do. No error holds the key.
func (s *Sink) Void(ctx context.Context, r sink.Record) error {
	if s.faults != nil {
		return s.faults
	}
	m, ok := s.cfg.Meters[r.Feature]
	if !ok {
		return errNoMeter(r.Feature)
	}
	a := s.cancelEvent(ctx, m, r, stripe.String(r.ID+"-cancel"))
	if a.Status >= 500 && a.Header.Get("Idempotent-Replayed") == "true" {
		a = s.cancelEvent(ctx, m, r, nil)
	}
	return a.voided(r)
}

// cancelEvent makes one request. A nil key is a fresh one.
func (s *Sink) cancelEvent(ctx context.Context, m Meter, r sink.Record, key *string) answer {
	params := &stripe.BillingMeterEventAdjustmentParams{
		EventName: stripe.String(m.EventName),
		Type:      stripe.String(string(stripe.BillingMeterEventAdjustmentTypeCancel)),
		Cancel:    &stripe.BillingMeterEventAdjustmentCancelParams{Identifier: stripe.String(r.ID)},
	}
	params.IdempotencyKey = key
	var made *stripe.BillingMeterEventAdjustment
	a := ask(ctx, s.cfg.Key, func(ctx context.Context) (err error) {
		params.Context = ctx
		made, err = s.adjustments.New(params)
		return err
	})
	a.id = r.ID
	if made != nil && made.Cancel != nil && made.Cancel.Identifier == r.ID {
		a.object = made.Object
	}
	return a
}

// voided judges by evidence whether r will not be billed.
func (a answer) voided(r sink.Record) error {
	const again = "void it again, which is safe"
	refusal, isStripes := errors.AsType[*stripe.Error](a.err)
	switch {
	case !a.Sent:
		return a.notVoided("the request was not sent: "+a.text(), again)
	case a.Status == 0 || !a.Complete:
		return a.notVoided("no complete answer came, so it may be canceled or not: "+a.text(), again)
	case a.Status >= 200 && a.Status < 300 && a.err == nil && a.object == adjustment:
		return nil
	case !isStripes:
		return a.notVoided("the answer is not Stripe's", again)
	case a.absent(refusal, r):
		return nil
	}
	said := a.quote(refusal)
	switch {
	case a.Status == http.StatusBadRequest, refusal.Code == stripe.ErrorCodeResourceMissing:
		return a.notVoided(said, "Stripe cancels an event only within 24 hours of getting it, and never on a finalized invoice; correct it by hand, say with an event of negative value or a credit note, and settle the record then")
	case a.Status == http.StatusForbidden:
		return a.notVoided(said, "a restricted key needs write access to billing meter event adjustments")
	}
	return a.notVoided(said, again)
}

// absent reports whether Stripe says that it has no event of r's identifier, and
// would still know one.
func (a answer) absent(e *stripe.Error, r sink.Record) bool {
	return e.Code == stripe.ErrorCodeResourceMissing && names(e.Msg, r.ID) && time.Since(r.End) < cancelable
}

// names reports whether a message of Stripe's has id as a word of its own.
func names(message, id string) bool {
	for word := range strings.FieldsFuncSeq(message, func(c rune) bool { return strings.ContainsRune(" '\"`:;,()", c) }) {
		if strings.TrimRight(word, ".") == id {
			return true
		}
	}
	return false
}

func (a answer) notVoided(said, advice string) error {
	err := fmt.Errorf("stripesink: record %s is not canceled: %s", a.id, said)
	if a.Status != 0 {
		err = fmt.Errorf("%w (status %d)", err, a.Status)
	}
	return pause(fmt.Errorf("%w; %s", err, advice), a.RetryAfter())
}
