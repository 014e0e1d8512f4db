package meter_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
)

// A record that the biller took is taken back and sent again.
func ExampleMeter_Reopen() {
	biller := memsink.New()
	m, err := meter.Open(meter.Config{
		Dir:   meter.InMemory,
		Sinks: []meter.Route{{Name: "biller", Sink: patient{biller}}},
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	defer m.Shutdown(ctx)
	if err := m.Feature("tax-report").Add(ctx, "cus_1", 3); err != nil {
		panic(err)
	}
	if err := m.Flush(ctx); err != nil {
		panic(err)
	}
	id := biller.Records()[0].ID
	fmt.Println(m.Reopen(ctx, "biller", id, "the biller knows no customer cus_1"))
	for q, outcome := range m.Quarantine() {
		fmt.Println(outcome, q.Quantity, q.Reason)
	}
	fmt.Println(m.Settle(ctx, "biller", id, sink.Pending, "customer created"))
	fmt.Println(m.Flush(ctx), biller.Records()[1].ID == id+"-2")
	// Output:
	// <nil>
	// rejected 3 the biller knows no customer cus_1
	// <nil>
	// <nil> true
}

// patient is a biller that may have second thoughts for an hour.
type patient struct{ *memsink.Sink }

func (p patient) Limits() sink.Limits {
	l := p.Sink.Limits()
	l.Confirm = time.Hour
	return l
}

// What was delivered yesterday, from the ledger's own files.
func ExampleMeter_Records() {
	dir, err := os.MkdirTemp("", "usage-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	m, err := meter.Open(meter.Config{
		Dir:    dir,
		Retain: 40 * 24 * time.Hour,
		Sinks:  []meter.Route{{Name: "biller", Sink: memsink.New()}},
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	defer m.Shutdown(ctx)
	if err := m.Feature("tax-report").Add(ctx, "cus_1", 3); err != nil {
		panic(err)
	}
	if err := m.Flush(ctx); err != nil {
		panic(err)
	}
	records, err := m.Records("biller", time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		panic(err)
	}
	for r, outcome := range records {
		fmt.Println(r.Subject, r.Quantity, outcome)
	}
	// Output: cus_1 3 delivered
}
