package stripesink_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// Stripe takes usage of a customer that it does not have, and tells later.
func ExampleSink_Webhook() {
	srv := stripetest.New(stripetest.Meter{EventName: "tax_report"})
	client, stop := srv.Pipe()
	defer stop()
	s := stripesink.New(stripesink.Config{
		Key: "sk_test_51H7x", BaseURL: stripetest.URL, HTTPClient: client,
		Meters: map[string]stripesink.Meter{"tax-report": {EventName: "tax_report"}},
	})
	mux := http.NewServeMux()
	mux.Handle("POST /stripe", s.Webhook(stripesink.WebhookConfig{
		Secrets: []string{"whsec_c2VjcmV0"}, // from the environment or a secret store
		Reopen: func(ctx context.Context, recordID, reason string) error {
			fmt.Println(recordID, reason)
			return nil // return m.Reopen(ctx, "stripe", recordID, reason)
		},
		Logger: slog.New(slog.DiscardHandler),
	}))

	hour := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	err := s.Deliver(context.Background(), []sink.Record{{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_left", Quantity: 3,
		Start: hour, End: hour.Add(time.Minute), Attempt: 1,
	}})
	fmt.Println("delivered:", err)
	for _, delivery := range srv.Webhook("whsec_c2VjcmV0") {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, delivery.Request("https://vendor.example/stripe"))
		fmt.Println(w.Code)
	}
	// Output:
	// delivered: <nil>
	// 01hq-7-2 Stripe could not bill it (meter_event_customer_not_found): Customer cus_left not found.
	// 200
}
