package filesink_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/filesink"
)

func ExampleNew() {
	dir, err := os.MkdirTemp("", "usage")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	s := filesink.New(filesink.Config{Path: filepath.Join(dir, "usage.jsonl")})
	defer s.Close() // a meter does this for its sinks
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
	data, err := os.ReadFile(filepath.Join(dir, "usage.jsonl"))
	fmt.Print(string(data), err)
	// Output:
	// {"id":"0001","feature":"tax-report","subject":"cus_1","dimensions":{},"kind":"sum","quantity":3,"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":1}
	// <nil>
}
