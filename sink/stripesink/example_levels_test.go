package stripesink_test

import (
	"context"
	"fmt"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// Seats, billed by the hour: the last level of each counts.
func ExampleSink_levels() {
	srv := stripetest.New(stripetest.Meter{EventName: "seats", TimeWindow: "hour"})
	srv.AddCustomer(stripetest.Customer{ID: "cus_ada"})
	client, stop := srv.Pipe()
	defer stop()
	s := stripesink.New(stripesink.Config{
		Key: "sk_test_51H7x", Meters: map[string]stripesink.Meter{"seats": {EventName: "seats"}},
		BaseURL: stripetest.URL, HTTPClient: client,
	})
	ctx := context.Background()
	fmt.Println(s.Prepare(ctx, []sink.Feature{{Name: "seats", Kind: sink.Last}}))

	hour := time.Now().UTC().Truncate(time.Hour).Add(-3 * time.Hour)
	for i, at := range []time.Duration{5 * time.Minute, 50 * time.Minute, 65 * time.Minute} {
		_ = s.Deliver(ctx, []sink.Record{{ // meter does this
			ID: fmt.Sprint("01hq-7-", i), Feature: "seats", Subject: "cus_ada", Kind: sink.Last, Quantity: int64(10 + i),
			Start: hour.Add(at), End: hour.Add(at + time.Minute), Attempt: 1,
		}})
	}
	fmt.Println(srv.Total("cus_ada", "seats"), "seat-hours")
	// Output:
	// <nil>
	// 23 seat-hours
}
