package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/inprocess/meter/internal/delivery"
	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

func Example() {
	ctx := context.Background()
	biller := sink.Func(func(_ context.Context, records []sink.Record) error {
		for _, r := range records {
			fmt.Println(r.Subject, "used", r.Quantity, r.Feature)
		}
		return nil
	})
	limits := delivery.LimitsOf(biller)
	counts, err := ledger.Open(ledger.Config{
		Routes: []ledger.Route{{Name: "biller", Timeout: limits.Timeout}},
		Window: ledger.OnFlush, Sync: time.Second, MaxDisk: 1 << 30,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := delivery.Start(delivery.Config{
		Ledger: delivery.FromLedger(counts),
		Routes: []delivery.Route{{Name: "biller", Sink: biller, Limits: limits}},
	})
	pages, _ := counts.Feature("pages", sink.Sum)
	_ = pages.Add("alice", 2)
	_ = pages.Add("alice", 3)
	_ = counts.Rotate(ctx)
	fmt.Println(d.Flush(ctx), d.Health(), d.Stop(ctx), counts.Close(ctx))
	// Output:
	// alice used 5 pages
	// <nil> <nil> <nil> <nil>
}
