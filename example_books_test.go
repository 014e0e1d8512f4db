package meter_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

func ExampleMeter_Books() {
	m, _ := memory()
	ctx := context.Background()
	_ = m.Feature("tax-report").Add(ctx, "cus_1", 3)
	_ = m.Feature("tokens").Add(ctx, "cus_1", 1200)
	_ = m.Flush(ctx)
	_ = m.Feature("tokens").Add(ctx, "cus_2", 300)
	books := m.Books()
	fmt.Println(books.Check())
	fmt.Print(books)
	// Output:
	// <nil>
	//      feature   route  accepted  pending  delivered  in doubt  rejected  voided  superseded  damaged
	//   tax-report  memory         3        0          3         0         0       0           0        0
	//       tokens  memory      1500      300       1200         0         0       0           0        0
	//        total  memory      1503      300       1203         0         0       0           0        0
}

func ExampleMeter_Settle() {
	m, _ := memory(func(c *meter.Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.Sinks = []meter.Route{{Name: "stripe", Sink: sink.Func(func(context.Context, []sink.Record) error {
			return fmt.Errorf("%w: no such customer", sink.ErrRejected)
		})}}
	})
	ctx := context.Background()
	_ = m.Feature("tax-report").Add(ctx, "cus_gone", 3)
	_ = m.Flush(ctx)
	for r, outcome := range m.Quarantine() {
		fmt.Println(r.Subject, r.Quantity, "on", r.Route, "is", outcome)
		if err := m.Settle(ctx, r.Route, r.ID, sink.Voided, "ticket 4711"); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("voided:", m.Books()[0].Voided)
	// Output:
	// cus_gone 3 on stripe is rejected
	// voided: 3
}

func ExampleBooks_Check() {
	fmt.Println(meter.Books{{Feature: "tokens", Route: "stripe", Accepted: 10, Delivered: 9}}.Check())
	// Output: meter: books: feature "tokens" on route "stripe": 1 of 10 accepted are unaccounted for
}
