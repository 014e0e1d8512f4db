// Httpsink bills through a licensing server of one's own: both halves run here, over
// HTTP on this machine. The first reply gets lost on purpose, after the server has
// stored the records, and the server restarts; in the end both sides agree.
//
//	go run ./examples/httpsink
//
// In a real program the halves are two programs: server.go goes to the one that bills.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/httpsink"
)

// secret is what both halves have; a real one comes from the environment.
const secret = "an example's secret, known to all"

var customers = map[string]int{"cus_ada": 3, "cus_bob": 4}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "httpsink:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "meter-httpsink-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bills := filepath.Join(dir, "bills.jsonl")

	server, err := startServer("127.0.0.1:0", bills, true)
	if err != nil {
		return err
	}
	fmt.Println("The licensing server is at", server.url())
	m, err := meter.Open(meter.Config{
		Dir: meter.InMemory, // "usage" in a real program: a directory survives crashes
		Sinks: []meter.Route{{Name: "licensing", Sink: httpsink.New(httpsink.Config{
			URL:    server.url(),
			Secret: secret,
		})}},
		Logger: slog.New(slog.DiscardHandler), // it would tell of the lost reply
		Window: meter.OnFlush,                 // sent by Flush here, so that the story is always the same; you would leave this out
	})
	if err != nil {
		return errors.Join(err, server.stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	err = count(ctx, m)
	if err == nil {
		err = m.Flush(ctx)
	}
	// The same address and file, another process as it were: what came before is on disk.
	server, restarted := server.restart(bills)
	if err = errors.Join(err, restarted); err != nil {
		return err
	}
	if err := errors.Join(count(ctx, m), m.Flush(ctx), m.Shutdown(ctx), server.stop()); err != nil {
		return err
	}
	return compare(m.Books(), bills)
}

func count(ctx context.Context, m *meter.Meter) error {
	report := m.Feature("tax-report")
	for customer, calls := range customers {
		for range calls {
			if err := report.Add(ctx, customer, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare sets what was counted beside what the server has.
func compare(books meter.Books, bills string) error {
	billed, err := readBills(bills)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, customer := range []string{"cus_ada", "cus_bob"} {
		fmt.Printf("%s: counted %d, the server bills %d\n", customer, 2*customers[customer], billed[customer])
		total += billed[customer]
		if billed[customer] != int64(2*customers[customer]) {
			return fmt.Errorf("%s is billed %d for %d calls", customer, billed[customer], 2*customers[customer])
		}
	}
	fmt.Printf("\n%v", books)
	for _, line := range books {
		if line.Delivered != total {
			return fmt.Errorf("%d were delivered by the books, and %d are billed", line.Delivered, total)
		}
	}
	return books.Check()
}
