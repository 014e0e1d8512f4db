package meter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

// 100 calls a month for everybody; the next is refused before it runs.
func ExampleLimit() {
	m, _ := memory()
	api := m.Feature("api", meter.Limit(func(context.Context, string) (license.Quota, error) {
		return license.Quota{Limit: 100}, nil
	}))
	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"})
	for i := range 101 {
		err := meter.Do(ctx, api, func(context.Context) error { return nil })
		if refused, ok := errors.AsType[*meter.RefusedError](err); ok {
			fmt.Printf("call %d: %v: %d of %d are used\n", i+1, refused, refused.Total.Quantity, refused.Total.Limit)
		}
	}
	// Output:
	// call 101: meter: refused: over-quota: feature "api": 100 of 100 are used
}

// What will be used is known at the end: 5000 are reserved before the work, and what
// was not needed is free again with Commit.
func ExampleHold_begin() {
	m, _ := memory()
	tokens := m.Feature("tokens", meter.Unit("token"), meter.Limit(func(context.Context, string) (license.Quota, error) {
		return license.Quota{Limit: 8000}, nil
	}))
	ctx, call, err := tokens.Begin(meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"}), meter.Hold(5000))
	defer call.Cancel() // frees what a call holds that does not get to Commit
	if err != nil {
		panic(err)
	}
	t := tokens.Total("cus_1")
	fmt.Printf("running:   %d used, %d held, %d left\n", t.Quantity, t.Held, t.Left())
	if err := errors.Join(meter.SetQuantity(ctx, 3100), call.Commit()); err != nil {
		panic(err)
	}
	t = tokens.Total("cus_1")
	fmt.Printf("committed: %d used, %d held, %d left\n", t.Quantity, t.Held, t.Left())
	// Output:
	// running:   0 used, 5000 held, 3000 left
	// committed: 3100 used, 0 held, 4900 left
}

// More than is included is let through and counted, and somebody hears of it.
func ExampleThresholds() {
	m, _ := memory()
	told := make(chan meter.Threshold, 2)
	api := m.Feature("api",
		meter.Limit(func(context.Context, string) (license.Quota, error) {
			return license.Quota{Limit: 10, Soft: true}, nil
		}),
		meter.Thresholds(func(t meter.Threshold) { told <- t }, 80, 100))
	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"})
	for range 8 {
		if err := meter.Do(ctx, api, func(context.Context) error { return nil }); err != nil {
			panic(err)
		}
	}
	fmt.Println("reached:", (<-told).Percent, "%")
	if err := meter.Do(ctx, api, func(context.Context) error { return nil }, meter.Quantity(4)); err != nil {
		panic(err)
	}
	fmt.Println("reached:", (<-told).Percent, "%")
	fmt.Println("counted:", api.Total("cus_1").Quantity)
	// Output:
	// reached: 80 %
	// reached: 100 %
	// counted: 12
}

// A vendor's dashboard: what all customers used.
func ExampleFeature_Totals() {
	m, _ := memory()
	api := m.Feature("api")
	for subject, n := range map[string]int64{"cus_1": 3, "cus_2": 4} {
		if err := api.Add(context.Background(), subject, n); err != nil {
			panic(err)
		}
	}
	all := int64(0)
	for subject, total := range api.Totals() {
		_ = subject // on the page, with total.Limit and total.Left()
		all += total.Quantity
	}
	fmt.Println(all)
	// Output: 7
}

// A customer's own page.
func ExampleMeter_Usage() {
	m, _ := memory()
	end := time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC)
	api := m.Feature("api", meter.Limit(func(context.Context, string) (license.Quota, error) {
		return license.Quota{Limit: 100, End: end}, nil // for a hundred years
	}))
	byTenant := func(r *http.Request) (meter.Caller, error) {
		return meter.Caller{Subject: r.Header.Get("X-Tenant")}, nil
	}

	mux := http.NewServeMux()
	mux.Handle("GET /api", meter.Middleware(api, meter.Identify(byTenant))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })))
	mux.Handle("GET /usage", m.Usage(byTenant))
	get := func(path string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("X-Tenant", "cus_1")
		mux.ServeHTTP(w, r)
		return w
	}
	get("/api")
	fmt.Print(get("/usage").Body)
	// Output:
	// {"subject":"cus_1","usage":[{"feature":"api","kind":"sum","quantity":1,"limit":100,"left":99,"end":"2126-01-01T00:00:00Z"}]}
}
