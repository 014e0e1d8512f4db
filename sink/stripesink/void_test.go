package stripesink_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestVoid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		time.Sleep(3 * time.Minute)
		a.recorded(t, lately(0, 1), lately(1, 10))
		for range 3 {
			require.NoError(t, a.sink.Void(t.Context(), lately(1, 10)))
			require.EqualValues(t, 1, a.Total(customer, event))
		}
	})
}

// Nil means that Stripe will not bill the record, whatever went wrong; and once
// nothing does any more, Void gets there, unless Stripe tells a person to look.
func TestVoidUnderEveryFault(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		inBubble(t, fault.String(), func(t *testing.T) {
			a := newAccount(t, nil)
			r := lately(0, 7)
			time.Sleep(3 * time.Minute)
			a.recorded(t, r)
			a.Script(fault)
			err := a.sink.Void(t.Context(), r)
			require.Error(t, err)
			require.ErrorContains(t, err, "void it again")
			require.Equal(t, 1, a.RequestsTo("POST /v1/billing/meter_event_adjustments"))
			err = a.sink.Void(t.Context(), r)
			if fault.Answer == stripetest.Error500 && fault.Applied {
				require.ErrorContains(t, err, "canceled already")
			} else {
				require.NoError(t, err)
			}
			require.Zero(t, a.Total(customer, event))
		})
	}
}

// A stored 500 would be replayed all day.
func TestVoidGetsPastAStored500(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r := lately(0, 7)
		time.Sleep(3 * time.Minute)
		a.recorded(t, r)
		a.Script(stripetest.Fault{Answer: stripetest.Error500})
		require.ErrorContains(t, a.sink.Void(t.Context(), r), "(status 500)")
		require.NoError(t, a.sink.Void(t.Context(), r))
		require.Zero(t, a.Total(customer, event))
		require.Equal(t, 3, a.RequestsTo("POST /v1/billing/meter_event_adjustments"))
	})
}

// That Stripe has no such event is believed only while it can't have forgotten it.
func TestVoidOfWhatStripeDoesNotHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r := lately(0, 7)
		time.Sleep(23*time.Hour + time.Minute - time.Second)
		require.NoError(t, a.sink.Void(t.Context(), r))
		time.Sleep(time.Second)
		r.ID = "02"
		err := a.sink.Void(t.Context(), r)
		require.ErrorContains(t, err, "No such meter event")
		require.ErrorContains(t, err, "correct it by hand")
	})
}

func TestVoidAfterADay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r := lately(0, 7)
		time.Sleep(3 * time.Minute)
		a.recorded(t, r)
		time.Sleep(24 * time.Hour)
		err := a.sink.Void(t.Context(), r)
		require.ErrorContains(t, err, "within 24 hours")
		require.ErrorContains(t, err, "correct it by hand")
		require.EqualValues(t, 7, a.Total(customer, event))
	})
}

func TestVoidBelievesOnlyProof(t *testing.T) {
	t.Parallel()
	const none = "No such meter event: '01-lately-0'"
	tests := map[string]struct {
		status int
		body   string
		says   string // "": void
	}{
		"canceled":            {200, `{"object":"billing.meter_event_adjustment","status":"pending","cancel":{"identifier":"01-lately-0"}}`, ""},
		"another":             {200, `{"object":"billing.meter_event_adjustment","cancel":{"identifier":"01-lately-01"}}`, "not Stripe's"},
		"a proxy's JSON":      {200, `{"ok":true}`, "not Stripe's"},
		"no body":             {200, ``, "not Stripe's"},
		"redirect":            {302, `{"object":"billing.meter_event_adjustment","cancel":{"identifier":"01-lately-0"}}`, "(status 302)"},
		"none":                {404, stripeError("invalid_request_error", "resource_missing", none), ""},
		"none, as a 400":      {400, stripeError("invalid_request_error", "resource_missing", none), ""},
		"no such meter":       {404, stripeError("invalid_request_error", "resource_missing", "No such meter: 'tax_report'"), "by hand"},
		"a longer identifier": {404, stripeError("invalid_request_error", "resource_missing", "No such meter event: '01-lately-01'"), "by hand"},
		"no such URL":         {404, stripeError("invalid_request_error", "", "Unrecognized request URL of 01-lately-0"), "void it again"},
		"no permission":       {403, stripeError("invalid_request_error", "", "The key may not"), "needs write access"},
		"wrong key":           {401, stripeError("invalid_request_error", "", "Invalid API Key"), "void it again"},
		"too many":            {429, stripeError("invalid_request_error", "rate_limit", "Slow down"), "void it again"},
		"a page":              {200, `<html>`, "not Stripe's"},
	}
	for name, test := range tests {
		inBubble(t, name, func(t *testing.T) {
			requests := 0
			s := stripesink.New(config(func(c *stripesink.Config) {
				c.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					requests++
					return reply(r, test.status, test.body), nil
				})}
			}))
			err := s.Void(t.Context(), lately(0, 7))
			if test.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, "01-lately-0")
			}
			require.Equal(t, 1, requests)
		})
	}
}

func TestVoidWithoutAMeter(t *testing.T) {
	t.Parallel()
	r := record(0, 7)
	r.Feature = "export"
	require.ErrorContains(t, newSink(nil).Void(t.Context(), r), `"export"`)
	require.ErrorContains(t, stripesink.New(stripesink.Config{}).Void(t.Context(), r), "Config.Key")
	s := stripesink.New(config(func(c *stripesink.Config) { c.BaseURL = "https://127.0.0.1:1" }))
	require.ErrorContains(t, s.Void(t.Context(), record(0, 7)), "was not sent")
}

func TestVoidOnTheWire(t *testing.T) {
	t.Parallel()
	tap, s := newWiretap(t, stripesink.Meter{EventName: event})
	for range 2 {
		require.Error(t, s.Void(t.Context(), record(0, 42)))
	}
	require.Equal(t, tap.headers[0].Get("Idempotency-Key"), tap.headers[1].Get("Idempotency-Key"))
	require.True(t, strings.HasPrefix(tap.headers[0].Get("Idempotency-Key"), record(0, 42).ID))
	require.NotEqual(t, record(0, 42).ID, tap.headers[0].Get("Idempotency-Key"), "that is the event's")
	require.Equal(t, "cancel", tap.forms[0].Get("type"))
	require.Equal(t, event, tap.forms[0].Get("event_name"))
	require.Equal(t, record(0, 42).ID, tap.forms[0].Get("cancel[identifier]"))
	require.Len(t, tap.forms[0], 3)
}
