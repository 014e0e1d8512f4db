package sink_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/sink"
)

// A sink is one method, so a function will do.
func ExampleFunc() {
	var s sink.Sink = sink.Func(func(_ context.Context, records []sink.Record) error {
		for _, r := range records {
			fmt.Println(r.Subject, r.Feature, r.Quantity)
		}
		return nil
	})
	err := s.Deliver(context.Background(), []sink.Record{
		{ID: "0001", Feature: "tax-report", Subject: "cus_1", Quantity: 3, Attempt: 1},
	})
	fmt.Println(err)
	// Output:
	// cus_1 tax-report 3
	// <nil>
}

// What a sink returns decides between sending again, an operator, and a second
// bill. This one can answer for each record alone.
func ExampleBatchError() {
	closed := map[string]bool{"cus_2": true}
	var s sink.Sink = sink.Func(func(_ context.Context, records []sink.Record) error {
		batch := sink.BatchError{Errs: make([]error, len(records))}
		failed := false
		for i, r := range records {
			if closed[r.Subject] {
				batch.Errs[i] = fmt.Errorf("account %s is closed: %w", r.Subject, sink.ErrRejected)
				failed = true
			}
		}
		if failed {
			return &batch
		}
		return nil // not batch: a nil pointer in an error is no nil error
	})
	err := s.Deliver(context.Background(), []sink.Record{
		{ID: "0001", Feature: "tax-report", Subject: "cus_1", Quantity: 3, Attempt: 1},
		{ID: "0002", Feature: "tax-report", Subject: "cus_2", Quantity: 1, Attempt: 1},
	})
	fmt.Println(err)
	// Output: sink: 1 of 2 records failed: account cus_2 is closed: sink: rejected
}

func ExampleRetryAfter() {
	err := sink.RetryAfter(fmt.Errorf("429 Too Many Requests: %w", sink.ErrNotApplied), 30*time.Second)
	fmt.Println(err)
	fmt.Println(errors.Is(err, sink.ErrNotApplied), sink.RetryDelay(err))
	// Output:
	// 429 Too Many Requests: sink: not applied (retry after 30s)
	// true 30s
}

func ExampleRetryDelay() {
	fmt.Println(sink.RetryDelay(&sink.BatchError{Errs: []error{
		nil,
		sink.RetryAfter(sink.ErrNotApplied, time.Second),
		sink.RetryAfter(sink.ErrNotApplied, time.Minute),
	}}))
	// Output: 1m0s
}

func ExampleKind_String() {
	fmt.Println(sink.Sum, sink.Max, sink.Last)
	// Output: sum max last
}

func ExampleOutcome_String() {
	fmt.Println(sink.Pending, sink.InDoubt)
	// Output: pending in doubt
}
