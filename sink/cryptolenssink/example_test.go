package cryptolenssink_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink/cryptolenssink"
)

// Usage is recorded under the customer's license key, which Cryptolens has Stripe bill.
func Example() {
	srv := cryptolenstest.New()
	key := srv.AddKey(cryptolenstest.Key{ProductID: 3646})

	m, err := meter.Open(meter.Config{
		Dir: meter.InMemory,
		Sinks: []meter.Route{{Name: "cryptolens", Sink: cryptolenssink.New(cryptolenssink.Config{
			Token:     "token",
			ProductID: 3646,
			Features:  []string{"tax-report"},
			Key: func(ctx context.Context, subject string) (license.Key, error) { // in production: cache.Key
				return license.NewKey(key.Key), nil
			},
			BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(), // in production: leave out
		})}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	report := m.Feature("tax-report")
	for range 3 {
		if err := report.Add(ctx, "acme", 1); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("flush:", m.Flush(ctx))
	fmt.Println("billed:", srv.Total(3646, key.Key), "in calls:", len(srv.Usage(3646, key.Key)))
	fmt.Println("shutdown:", m.Shutdown(ctx))
	// Output:
	// flush: <nil>
	// billed: 3 in calls: 1
	// shutdown: <nil>
}

// Usage is counted on a data object of the customer's license key, so that both can see
// it in the license.
func ExampleNewCounters() {
	srv := cryptolenstest.New()
	key := srv.AddKey(cryptolenstest.Key{ProductID: 3646})
	counters := cryptolenssink.NewCounters(cryptolenssink.CountersConfig{
		Token:     "token",
		ProductID: 3646,
		Key: func(ctx context.Context, subject string) (license.Key, error) {
			return license.NewKey(key.Key), nil
		},
		Objects: map[string]string{"tax-report": "reports"},
		BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(), // in production: leave out
	})
	m, err := meter.Open(meter.Config{Dir: meter.InMemory, Sinks: []meter.Route{{Name: "cryptolens", Sink: counters}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	srv.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true, On: "IncrementIntValue"}) // an answer gets lost
	if err := m.Feature("tax-report").Add(ctx, "acme", 3); err != nil {
		fmt.Println(err)
	}
	fmt.Println("flush:", m.Flush(ctx))
	for _, o := range srv.DataObjects(3646, key.Key, "") {
		fmt.Println(o.Name, o.Int)
	}
	fmt.Println("shutdown:", m.Shutdown(ctx))
	// Output:
	// flush: <nil>
	// reports 3
	// shutdown: <nil>
}
