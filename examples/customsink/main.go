// Customsink delivers to a sink of one's own, a directory of invoices, and shows
// why a record's ID matters: the first reply gets lost, so the record is sent
// again, and is billed once.
//
//	go run  ./examples/customsink
//	go test ./examples/customsink   # the conformance kit, in about ten lines
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "customsink:", err)
		os.Exit(1)
	}
}

// forgetful stores its first batch and loses the reply.
type forgetful struct {
	Store
	calls int
}

func (f *forgetful) Deliver(ctx context.Context, records []sink.Record) error {
	err := f.Store.Deliver(ctx, records)
	f.calls++
	for _, r := range records {
		fmt.Printf("  call %d: %d of %s for %s, attempt %d\n", f.calls, r.Quantity, r.Feature, r.Subject, r.Attempt)
	}
	if f.calls == 1 {
		return errors.New("connection reset by peer") // stored, but who knows?
	}
	return err
}

func run() error {
	dir, err := os.MkdirTemp("", "meter-customsink-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store := &forgetful{Store: Store{dir}}
	m, err := meter.Open(meter.Config{
		Dir:    meter.InMemory,
		Sinks:  []meter.Route{{Name: "invoices", Sink: store}},
		Logger: slog.New(slog.DiscardHandler), // it would tell of the lost reply
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := m.Feature("tax-report").Add(ctx, "cus_ada", 3); err != nil {
		return err
	}
	fmt.Println("The sink is asked to deliver:")
	if err := errors.Join(m.Flush(ctx), m.Shutdown(ctx)); err != nil {
		return err
	}
	total, err := store.Total("tax-report", "cus_ada")
	if err != nil {
		return err
	}
	fmt.Printf("The invoice of cus_ada, after %d calls: %d\n\n%v", store.calls, total, m.Books())
	if total != 3 || store.calls < 2 {
		return fmt.Errorf("cus_ada was billed %d in %d calls, want 3 in at least 2", total, store.calls)
	}
	return m.Books().Check()
}
