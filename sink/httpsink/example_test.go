package httpsink_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
)

// In the process that counts: a route of meter.Config.Sinks.
func ExampleNew() {
	s := httpsink.New(httpsink.Config{
		URL:    "https://licensing.example.com/v1/usage",
		Secret: os.Getenv("USAGE_SECRET"),
	})
	fmt.Println(s.Validate())
	// Output: httpsink: Config.Secret is empty: set it to a secret that both ends have, best 32 random bytes in hex
}

// Straight to OpenMeter. Without DedupeWindow, doubt waits for an operator; with
// OpenMeter's deduplication switched on in its sink worker, set what it keeps.
func ExampleNew_openMeter() {
	s := httpsink.New(httpsink.Config{
		URL:   "https://openmeter.example.com/api/v1/events",
		Token: os.Getenv("OPENMETER_TOKEN"),
		CloudEvents: &httpsink.CloudEvents{
			Source: "//shop.example.com/meter",
			Types:  map[string]string{"tax-report": "report"}, // the meter's event type
		},
		DedupeWindow: 24 * time.Hour,
	})
	fmt.Println(s.Validate(), s.Limits().DedupeWindow, s.Kinds())
	// Output: <nil> 24h0m0s [sum]
}

// On the vendor's server.
func ExampleNewHandler() {
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{
		Secrets: []string{"0123456789abcdef0123456789abcdef"},
		Store:   memsink.New(), // in production Idempotent, for this one forgets when the process ends
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/usage", h)
	// Output:
}

// Both ends: what is sent twice is stored once.
func ExampleHandler() {
	const secret = "0123456789abcdef0123456789abcdef"
	store := memsink.New()
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: store})
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(h)
	defer server.Close()

	s := httpsink.New(httpsink.Config{URL: server.URL, Secret: secret})
	defer func() { _ = s.Close() }()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	records := []sink.Record{{
		ID: "k3v7-1", Feature: "tax-report", Subject: "cus_ada", Quantity: 3, Start: noon, End: noon.Add(time.Minute), Attempt: 1,
	}}
	fmt.Println(s.Deliver(context.Background(), records))
	fmt.Println(s.Deliver(context.Background(), records))
	fmt.Println(store.Total("tax-report", "cus_ada"))
	// Output:
	// <nil>
	// <nil>
	// 3
}

// A function over a database, whose transaction holds the record and its ID.
func ExampleIdempotent() {
	type row struct{ id, feature, subject string }
	table := map[row]int64{} // INSERT … ON CONFLICT (id) DO NOTHING
	store := httpsink.Idempotent(func(ctx context.Context, records []sink.Record) error {
		for _, r := range records {
			table[row{r.ID, r.Feature, r.Subject}] = r.Quantity
		}
		return ctx.Err() // of the commit
	})
	_, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{"0123456789abcdef0123456789abcdef"}, Store: store})
	fmt.Println(err)

	// A function that promises nothing is not taken.
	_, err = httpsink.NewHandler(httpsink.HandlerConfig{
		Secrets: []string{"0123456789abcdef0123456789abcdef"},
		Store:   sink.Func(func(context.Context, []sink.Record) error { return nil }),
	})
	fmt.Println(err)
	// Output:
	// <nil>
	// httpsink: HandlerConfig.Store states no Limits.DedupeWindow, so it would bill a record twice that comes twice: store record and ID in one transaction, and say so by Idempotent
}
