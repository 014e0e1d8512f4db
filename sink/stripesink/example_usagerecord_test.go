package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// Licenses are found in the metadata of subscriptions, and three processes count for
// the same customers, with meter.Config.Instance 0, 1 and 2.
func ExampleNewUsageRecords() {
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: "rk_test_51H7x", // from the environment or a secret store
		Prices: map[string][]string{
			"tax-report": {"price_monthly", "price_yearly"},
			"seats":      {"price_seats"},
		},
		Instances:       3,
		SubjectMetadata: "skm_key_id",
	})
	fmt.Println(s.Validate(), s.Address(), s.Limits().MinWindow)
	// Output: <nil> stripe:test/usage-records/3 5s
}

func ExampleUsageRecords_Validate() {
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key:       "sk_test_51H7x",
		Prices:    map[string][]string{"tax-report": {"prod_1"}},
		Instances: 100,
	})
	fmt.Println(s.Validate())
	// Output:
	// stripesink: UsageRecordsConfig.Prices["tax-report"] has the ID of a product: use that of its price, which starts with "price_"
	// stripesink: UsageRecordsConfig.Instances is 100: use 0 (for 1) to 60
}

// exampleStripe has a customer with a subscription that began yesterday.
func exampleStripe(usedTo string) (*stripetest.Server, stripetest.Subscription, *stripesink.UsageRecords, func()) {
	yesterday := time.Now().Add(-24 * time.Hour)
	server, now := stripetest.New(), yesterday
	server.Now = func() time.Time { return now }
	server.AddPrice(stripetest.Price{ID: "price_1", Aggregate: usedTo})
	server.AddCustomer(stripetest.Customer{ID: "cus_1"})
	sub := server.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: "price_1"}}})
	now = time.Now()
	client, stop := server.Pipe()
	return server, sub, stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key:        "sk_test_51H7x",
		Prices:     map[string][]string{"tax-report": {"price_1"}},
		BaseURL:    stripetest.URL,
		HTTPClient: client,
		Logger:     slog.New(slog.DiscardHandler),
	}), stop
}

// However often a record is sent, it counts once.
func ExampleUsageRecords_Deliver() {
	server, sub, s, stop := exampleStripe("sum")
	defer stop()

	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Minute)
	record := sink.Record{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: hourAgo, End: hourAgo.Add(time.Minute), Attempt: 1,
	}
	for range 3 {
		fmt.Println(s.Deliver(context.Background(), []sink.Record{record}))
		record.Attempt, record.Doubt = record.Attempt+1, true
	}
	fmt.Println("billed:", server.Billed(sub.Items[0].ID, time.Now()))

	record.ID, record.Subject, record.Attempt, record.Doubt = "01hq-7-3", "cus_2", 1, false
	err := s.Deliver(context.Background(), []sink.Record{record})
	fmt.Println(errors.Is(err, stripesink.ErrNotFound), errors.Is(err, sink.ErrNotApplied))
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// billed: 3
	// true true
}

func ExampleUsageRecords_Prepare() {
	_, _, s, stop := exampleStripe("max")
	defer stop()

	err := s.Prepare(context.Background(), []sink.Feature{{Name: "tax-report", Kind: sink.Sum}})
	var perFeature *sink.BatchError
	if errors.As(err, &perFeature) {
		fmt.Println(perFeature.Errs[0])
	}
	// Output: stripesink: feature "tax-report", Stripe price price_1: it bills the "max" (aggregate_usage) of a period's usage records, and kind sum needs sum: use another price, or declare the feature as another kind
}

func ExampleUsageRecords_Usage() {
	_, _, s, stop := exampleStripe("sum")
	defer stop()

	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Minute)
	err := s.Deliver(context.Background(), []sink.Record{{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: hourAgo, End: hourAgo.Add(time.Minute), Attempt: 1,
	}})
	fmt.Println(err)
	fmt.Println(s.Usage(context.Background(), "tax-report", "cus_1", hourAgo, time.Now()))
	// Output:
	// <nil>
	// 3 <nil>
}

// Whoever has used something makes windows end where its bill does.
func ExampleUsageRecords_NextEnd() {
	_, sub, s, stop := exampleStripe("sum")
	defer stop()

	fmt.Println(s.NextEnd(time.Now()).IsZero())
	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Minute)
	err := s.Deliver(context.Background(), []sink.Record{{
		ID: "01hq-7-2", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: hourAgo, End: hourAgo.Add(time.Minute), Attempt: 1,
	}})
	next := s.NextEnd(time.Now())
	fmt.Println(err, sub.End.Sub(next), sub.End.Sub(s.NextEnd(next)))
	// Output:
	// true
	// <nil> 15s 0s
}
