package stripesink_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func stripeError(kind, code, message string) string {
	return fmt.Sprintf(`{"error":{"type":%q,"code":%q,"message":%q}}`, kind, code, message)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	const invalid = "invalid_request_error"
	r := record(0, 3)
	exists := "An event already exists with identifier " + r.ID + "."
	tests := []struct {
		name   string
		status int
		header http.Header
		body   string
		want   sink.Outcome
		delay  time.Duration
	}{
		{name: "recorded", status: 200, body: `{"object":"billing.meter_event"}`, want: sink.Delivered},
		{name: "recorded, created", status: 201, body: `{"object":"billing.meter_event"}`, want: sink.Delivered},
		{name: "no body", status: 200, want: sink.InDoubt},
		{name: "garbled", status: 200, body: `{"object":`, want: sink.InDoubt},
		{name: "a proxy's word", status: 200, body: `login required`, want: sink.InDoubt},
		{name: "a proxy's JSON", status: 200, body: `{"ok":true}`, want: sink.InDoubt},
		{name: "page of a portal", status: 200, header: http.Header{"Content-Type": {"text/html"}}, body: "<html>", want: sink.InDoubt},
		{name: "page without a type", status: 200, header: http.Header{"Content-Type": {""}}, body: " <!doctype html>", want: sink.InDoubt},
		{name: "oversized", status: 200, body: fmt.Sprintf("%2097152d", 1), want: sink.InDoubt},
		{name: "redirect", status: 302, header: http.Header{"Location": {"/elsewhere"}}, want: sink.InDoubt},
		{name: "redirect with JSON", status: 308, header: http.Header{"Location": {"/elsewhere"}}, body: `{}`, want: sink.InDoubt},
		{name: "duplicate of ours", status: 400, body: stripeError(invalid, "", exists), want: sink.Delivered},
		{name: "duplicate of a longer one", status: 400, body: stripeError(invalid, "", "An event already exists with identifier "+r.ID+"0."), want: sink.InDoubt},
		{name: "invalid", status: 400, body: stripeError(invalid, "parameter_missing", "Missing required param: x."), want: sink.Rejected},
		{name: "other body under our key", status: 400, body: stripeError("idempotency_error", "", "Keys for idempotent requests can only be used…"), want: sink.InDoubt},
		{name: "400 of nobody", status: 400, body: `{}`, want: sink.InDoubt},
		{name: "400 of a proxy", status: 400, body: "Bad Request", want: sink.InDoubt},
		{name: "wrong key", status: 401, body: stripeError(invalid, "", "Invalid API Key provided"), want: sink.Pending, delay: time.Minute},
		{name: "payment required", status: 402, body: stripeError("card_error", "", "?"), want: sink.InDoubt},
		{name: "forbidden", status: 403, body: stripeError(invalid, "", "This key does not have the required permissions"), want: sink.Pending, delay: time.Minute},
		{name: "forbidden by a proxy", status: 403, header: http.Header{"Content-Type": {"text/html"}}, body: "<html>", want: sink.InDoubt},
		{name: "no such URL", status: 404, body: stripeError(invalid, "", "Unrecognized request URL"), want: sink.Pending, delay: time.Minute},
		{name: "locked", status: 409, body: stripeError(invalid, "lock_timeout", "Another request"), want: sink.Pending},
		{name: "key in use", status: 409, body: stripeError("idempotency_error", "idempotency_key_in_use", "There is currently another in-progress request"), want: sink.InDoubt},
		{name: "throttled", status: 429, body: stripeError(invalid, "rate_limit", "Too many"), want: sink.Pending},
		{name: "throttled for a time", status: 429, header: http.Header{"Retry-After": {"30"}}, body: stripeError(invalid, "rate_limit", "Too many"), want: sink.Pending, delay: 30 * time.Second},
		{name: "throttled for ever", status: 429, header: http.Header{"Retry-After": {"99999999"}}, body: stripeError(invalid, "rate_limit", "Too many"), want: sink.Pending, delay: time.Hour},
		{name: "throttled backwards", status: 429, header: http.Header{"Retry-After": {"-5"}}, body: stripeError(invalid, "rate_limit", "Too many"), want: sink.Pending},
		{name: "throttled by a proxy", status: 429, body: "slow down", want: sink.InDoubt},
		{name: "failed", status: 500, body: stripeError("api_error", "", "An unknown error occurred"), want: sink.InDoubt},
		{name: "bad gateway", status: 502, header: http.Header{"Content-Type": {"text/html"}}, body: "<html>", want: sink.InDoubt},
		{name: "down for a time", status: 503, header: http.Header{"Retry-After": {"30"}}, body: stripeError("api_error", "", "?"), want: sink.InDoubt, delay: 30 * time.Second},
		{name: "long down", status: 503, header: http.Header{"Retry-After": {"Fri, 01 Jan 2100 00:00:00 GMT"}}, body: `{}`, want: sink.InDoubt, delay: time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("Content-Type", "application/json")
				for name, values := range test.header {
					w.Header()[name] = values
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}))
			defer server.Close()
			s := stripesink.New(stripesink.Config{
				Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(),
				Meters: map[string]stripesink.Meter{feature: {EventName: event}},
			})
			err := s.Deliver(t.Context(), []sink.Record{r})
			require.Equal(t, test.want, judge(err, 1)[0], "%v", err)
			require.Equal(t, test.delay, sink.RetryDelay(err))
			require.Equal(t, 1, requests)
			if err != nil {
				require.ErrorContains(t, err, r.ID)
			}
		})
	}
}

func TestUnsentIsNotApplied(t *testing.T) {
	t.Parallel()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, url := range map[string]string{
		"refused":     gone.URL,
		"no name":     "https://stripe.invalid",
		"unknown CA":  tls.URL,
		"bad address": "https://127.0.0.1:1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stripesink.New(stripesink.Config{
				Key: testKey, BaseURL: url, Meters: map[string]stripesink.Meter{feature: {EventName: event}},
			})
			defer func() { require.NoError(t, s.Close()) }()
			require.NoError(t, s.Validate())
			err := s.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 1)})
			require.Equal(t, []sink.Outcome{sink.Pending, sink.Pending}, judge(err, 2), "%v", err)
		})
	}
}
