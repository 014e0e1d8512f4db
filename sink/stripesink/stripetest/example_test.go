package stripetest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/usagerecord"
)

// A reply that gets lost must not bill twice.
func Example() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	srv := stripetest.New(stripetest.Meter{EventName: "tax_report"})
	srv.Now = stripetest.NewClock(noon.Add(time.Minute)).Now
	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
	srv.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true})
	client, stop := srv.Pipe()
	defer stop()

	s := stripesink.New(stripesink.Config{
		Key:        "sk_test_1",
		Meters:     map[string]stripesink.Meter{"tax-report": {EventName: "tax_report"}},
		BaseURL:    stripetest.URL,
		HTTPClient: client,
	})
	record := sink.Record{
		ID: "01-1", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: noon, End: noon.Add(time.Minute), Attempt: 1,
	}
	fmt.Println("delivered:", s.Deliver(context.Background(), []sink.Record{record}) == nil)
	record.Attempt = 2
	fmt.Println("delivered:", s.Deliver(context.Background(), []sink.Record{record}) == nil)
	fmt.Println("requests:", srv.Requests(), "billed:", srv.Total("cus_1", "tax_report"))
	// Output:
	// delivered: false
	// delivered: true
	// requests: 2 billed: 3
}

// Usage records are billed by the period in which they lie.
func ExampleServer_Billed() {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	clock := stripetest.NewClock(march)
	srv := stripetest.New()
	srv.Now = clock.Now
	customer := srv.AddCustomer(stripetest.Customer{})
	price := srv.AddPrice(stripetest.Price{Aggregate: "max"})
	item := srv.AddSubscription(stripetest.Subscription{
		Customer: customer.ID,
		Items:    []stripetest.Item{{Price: price.ID}},
	}).Items[0].ID

	client, stop := srv.Pipe()
	defer stop()
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		HTTPClient: client,
		URL:        stripe.String(stripetest.URL),
	})
	use := func(quantity int64) {
		_, err := usagerecord.Client{B: backend, Key: "sk_test_1"}.New(&stripe.UsageRecordParams{
			SubscriptionItem: stripe.String(item),
			Action:           stripe.String("set"),
			Quantity:         stripe.Int64(quantity),
			TimestampNow:     stripe.Bool(true),
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	clock.Advance(24 * time.Hour)
	use(7)
	clock.Advance(24 * time.Hour)
	use(5)
	clock.Set(march.AddDate(0, 1, 1))
	use(2)
	fmt.Println(srv.Billed(item, march), srv.Billed(item, march.AddDate(0, 1, 0)))
	// Output: 7 2
}

// Events that can't be billed are accepted, and reported by webhook.
func ExampleServer_Webhook() {
	srv := stripetest.New(stripetest.Meter{EventName: "tax_report"})
	server := httptest.NewServer(srv) // nobody was added as a customer
	defer server.Close()
	s := stripesink.New(stripesink.Config{
		Key:     "sk_test_1",
		Meters:  map[string]stripesink.Meter{"tax-report": {EventName: "tax_report"}},
		BaseURL: server.URL,
	})
	minute := time.Now().Truncate(time.Minute)
	err := s.Deliver(context.Background(), []sink.Record{{
		ID: "01-1", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: minute.Add(-time.Minute), End: minute, Attempt: 1,
	}})
	fmt.Println(err, srv.Total("cus_1", "tax_report"), srv.Events()[0].Problem)

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // yours
		w.WriteHeader(http.StatusNoContent)
	})
	for _, delivery := range srv.Webhook("whsec_1") {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, delivery.Request("/stripe"))
		fmt.Println(delivery.Type, answer.Code)
	}
	// Output:
	// <nil> 0 meter_event_customer_not_found
	// v1.billing.meter.error_report_triggered 204
}

func ExampleServer_Script() {
	srv := stripetest.New()
	srv.Script(
		stripetest.Fault{}, // the first request passes
		stripetest.Fault{Answer: stripetest.HTML502, RetryAfter: 3},
		stripetest.Fault{Answer: stripetest.Throttled, On: "GET /v1/prices"},
	)
	for _, path := range []string{"/v1/prices", "/v1/billing/meters", "/v1/billing/meters", "/v1/prices"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer sk_test_1")
		answer := httptest.NewRecorder()
		srv.ServeHTTP(answer, r)
		fmt.Println(answer.Code, path)
	}
	// Output:
	// 200 /v1/prices
	// 502 /v1/billing/meters
	// 200 /v1/billing/meters
	// 429 /v1/prices
}
