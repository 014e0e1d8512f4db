package memsink_test

import (
	"context"
	"fmt"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
)

func ExampleNew() {
	s := memsink.New()
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	record := sink.Record{
		ID: "0001", Feature: "tax-report", Subject: "cus_1", Quantity: 3,
		Start: start, End: start.Add(time.Minute), Attempt: 1,
	}
	for range 2 { // the second time it is known
		if err := s.Deliver(context.Background(), []sink.Record{record}); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(s.Total("tax-report", "cus_1"))
	// Output: 3
}

func ExampleSink_Records() {
	s := memsink.New()
	if err := s.Deliver(context.Background(), []sink.Record{
		{ID: "0001", Feature: "tax-report", Subject: "cus_1", Quantity: 3, Attempt: 1},
		{ID: "0002", Feature: "tax-report", Subject: "cus_2", Quantity: 1, Attempt: 1},
	}); err != nil {
		fmt.Println(err)
	}
	for _, r := range s.Records() {
		fmt.Println(r.ID, r.Subject, r.Quantity)
	}
	// Output:
	// 0001 cus_1 3
	// 0002 cus_2 1
}
