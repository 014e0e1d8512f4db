package stripesink_test

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// lastHour is a Stripe with one customer, and a record of the hour before this one.
func lastHour() (s *stripesink.Sink, r sink.Record, stop func()) {
	hour := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	clock := stripetest.NewClock(hour)
	srv := stripetest.New()
	srv.Now = clock.Now
	srv.AddMeter(stripetest.Meter{EventName: "tax_report"})
	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
	clock.Advance(time.Hour)
	client, stop := srv.Pipe()
	s = stripesink.New(stripesink.Config{
		Key: "sk_test_51H7x", BaseURL: stripetest.URL, HTTPClient: client, SoleWriter: true,
		Meters: map[string]stripesink.Meter{"tax-report": {EventName: "tax_report"}},
	})
	return s, sink.Record{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: hour, End: hour.Add(time.Minute), Attempt: 1,
	}, stop
}

// A delivery that never came to Stripe, say because somebody settled a record by
// mistake, shows as a difference.
func ExampleSink_Reconcile() {
	s, r, stop := lastHour()
	defer stop()
	ctx := context.Background()
	lost := r
	lost.ID, lost.Quantity = "01hq-8-2", 40
	fmt.Println(s.Deliver(ctx, []sink.Record{r}))

	// records, err := m.Records("stripe", r.Start, r.Start.Add(time.Hour))
	var records iter.Seq2[sink.Record, sink.Outcome] = func(yield func(sink.Record, sink.Outcome) bool) {
		_ = yield(r, sink.Delivered) && yield(lost, sink.Delivered)
	}
	reconciliation, err := s.Reconcile(ctx, records, r.Start, r.Start.Add(time.Hour))
	fmt.Println(err)
	for _, line := range reconciliation.Differences() {
		fmt.Println(line.Feature, line.Subject, line.Difference, line.Err)
	}
	// Output:
	// <nil>
	// <nil>
	// tax-report cus_1 -40 <nil>
}

// Customers have billing periods of their own, and Stripe tells the totals of periods.
func ExampleUsageRecords_Reconcile() {
	srv := stripetest.New()
	srv.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
	now := time.Now().UTC()
	srv.AddSubscription(stripetest.Subscription{
		Customer: "cus_1", Items: []stripetest.Item{{Price: "price_1"}}, Start: now.AddDate(0, 0, -9), End: now.AddDate(0, 0, 21),
	})
	client, stop := srv.Pipe()
	defer stop()
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: "sk_test_51H7x", BaseURL: stripetest.URL, HTTPClient: client,
		Prices: map[string][]string{"tax-report": {"price_1"}},
	})
	hour := now.Truncate(time.Hour).Add(-time.Hour)
	r := sink.Record{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: hour, End: hour.Add(time.Minute), Attempt: 1,
	}
	fmt.Println(s.Deliver(context.Background(), []sink.Record{r}))

	// records, err := m.Records("stripe", now.AddDate(0, -1, -1), now)
	var records iter.Seq2[sink.Record, sink.Outcome] = func(yield func(sink.Record, sink.Outcome) bool) {
		yield(r, sink.Delivered)
	}
	reconciliation, err := s.Reconcile(context.Background(), records, hour, hour.Add(time.Hour))
	fmt.Println(err)
	for _, line := range reconciliation.Lines {
		fmt.Println(line.Subject, line.Delivered, line.Billed, line.End.Sub(line.Start))
	}
	// Output:
	// <nil>
	// <nil>
	// cus_1 3 3 720h0m0s
}

func ExampleReconciliation_String() {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	april := march.AddDate(0, 1, 0)
	fmt.Print(stripesink.Reconciliation{Start: march, End: april, Lines: []stripesink.ReconcileLine{
		{Feature: "tax-report", Subject: "cus_1", Start: march, End: april, Delivered: 1200, Open: 7, Billed: 1150, Difference: -50},
		{Feature: "tax-report", Subject: "cus_2", Start: march, End: april, Delivered: 31, Billed: 31},
	}})
	// Output:
	// usage in [2026-03-01 00:00, 2026-04-01 00:00) UTC
	// feature     subject  accepted  open  voided  billed  difference
	// tax-report  cus_1    1200      7     0       1150    -50
	// tax-report  cus_2    31        0     0       31      +0
	// 1 of 2 differ or are unknown. accepted: Stripe took it. billed: Stripe's total. difference: billed less accepted.
}

func ExampleReconciliation_Differences() {
	var r stripesink.Reconciliation // from Sink.Reconcile
	r.Lines = []stripesink.ReconcileLine{
		{Feature: "tax-report", Subject: "cus_1", Delivered: 1200, Billed: 1150, Difference: -50},
		{Feature: "tax-report", Subject: "cus_2", Delivered: 31, Billed: 31},
	}
	for _, line := range r.Differences() {
		fmt.Println(line.Subject, line.Difference)
	}
	// Output: cus_1 -50
}

func ExampleSink_Usage() {
	s, r, stop := lastHour()
	defer stop()
	fmt.Println(s.Deliver(context.Background(), []sink.Record{r}))
	fmt.Println(s.Usage(context.Background(), "tax-report", "cus_1", r.Start, r.Start.Add(time.Hour)))
	// Output:
	// <nil>
	// 3 <nil>
}

// meter calls Void when an operator voids a record.
func ExampleSink_Void() {
	s, r, stop := lastHour()
	defer stop()
	fmt.Println(s.Deliver(context.Background(), []sink.Record{r}))
	fmt.Println(s.Void(context.Background(), r))
	fmt.Println(s.Usage(context.Background(), "tax-report", "cus_1", r.Start, r.Start.Add(time.Hour)))
	// Output:
	// <nil>
	// <nil>
	// 0 <nil>
}

// meter calls Verify for records in doubt that can't be sent again.
func ExampleSink_Verify() {
	s, r, stop := lastHour()
	defer stop()
	fmt.Println(s.Verify(context.Background(), r, true)) // not there, but perhaps not yet
	fmt.Println(s.Deliver(context.Background(), []sink.Record{r}))
	fmt.Println(s.Verify(context.Background(), r, true))
	fmt.Println(s.Verify(context.Background(), r, false)) // another record may make up the total
	// Output:
	// in doubt <nil>
	// <nil>
	// delivered <nil>
	// in doubt <nil>
}
