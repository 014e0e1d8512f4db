package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
)

func ExampleNew() {
	s := stripesink.New(stripesink.Config{
		Key: "rk_test_51H7x", // from the environment or a secret store
		Meters: map[string]stripesink.Meter{
			"tax-report": {EventName: "tax_report"},
			"tokens":     {EventName: "llm_tokens", ValueKey: "tokens"},
		},
	})
	fmt.Println(s.Validate(), s.Address())
	// Output: <nil> stripe:test
}

func ExampleSink_Validate() {
	s := stripesink.New(stripesink.Config{
		Key:     "pk_live_51H7x",
		Meters:  map[string]stripesink.Meter{"tax-report": {}},
		BaseURL: "http://stripe-gateway.example",
	})
	fmt.Println(s.Validate())
	// Output:
	// stripesink: Config.Key is a publishable key: use a secret (sk_) or restricted (rk_) one
	// stripesink: Config.BaseURL must start with https:// (http:// only to this machine), for the key travels with every request
	// stripesink: Config.Meters["tax-report"].EventName is empty: use the meter's event_name
}

// meter calls Deliver; this shows how it reads the answer to an outage.
func ExampleSink_Deliver() {
	stripe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests."}}`)
	}))
	defer stripe.Close()
	s := stripesink.New(stripesink.Config{
		Key:     "sk_test_51H7x",
		Meters:  map[string]stripesink.Meter{"tax-report": {EventName: "tax_report"}},
		BaseURL: stripe.URL,
	})
	defer s.Close()

	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	err := s.Deliver(context.Background(), []sink.Record{{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: noon, End: noon.Add(time.Minute), Attempt: 1,
	}})
	fmt.Println(errors.Is(err, sink.ErrNotApplied), sink.RetryDelay(err))
	// Output: true 5s
}

func ExampleSink_Prepare() {
	stripe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object": "list", "data": [{
			"id": "mtr_1", "event_name": "seats", "status": "active",
			"default_aggregation": {"formula": "last"},
			"customer_mapping": {"event_payload_key": "stripe_customer_id"},
			"value_settings": {"event_payload_key": "value"}}]}`)
	}))
	defer stripe.Close()
	s := stripesink.New(stripesink.Config{
		Key:     "sk_test_51H7x",
		Meters:  map[string]stripesink.Meter{"seats": {EventName: "seats"}},
		BaseURL: stripe.URL,
	})
	defer s.Close()

	err := s.Prepare(context.Background(), []sink.Feature{{Name: "seats"}})
	var perFeature *sink.BatchError
	if errors.As(err, &perFeature) {
		fmt.Println(perFeature.Errs[0])
	}
	// Output: stripesink: feature "seats", Stripe meter "seats": its formula is "last", which would not add up quantities: use a meter with default_aggregation.formula sum
}
