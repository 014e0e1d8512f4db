// Decorator meters functions: Wrap once at wiring, Do and DoValue on the spot, Seq
// for streams whose length nobody knows beforehand.
//
//	go run ./examples/decorator
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/memsink"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "decorator:", err)
		os.Exit(1)
	}
}

func run() error {
	bills := memsink.New()
	m, err := meter.Open(meter.Config{
		Dir:   meter.InMemory, // "usage" in a real program: a directory survives crashes
		Sinks: []meter.Route{{Name: "memory", Sink: bills}},
	})
	if err != nil {
		return err
	}
	// Who is billed travels in the context, from wherever you authenticate.
	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_ada"})

	wrapped := wrap(ctx, m)
	onTheSpot := do(ctx, m)
	streamed := seq(ctx, m)
	if err := errors.Join(wrapped, onTheSpot, streamed, m.Shutdown(context.Background())); err != nil {
		return err
	}

	fmt.Println("\nBilled to cus_ada:")
	for _, want := range []struct {
		feature  string
		quantity int64
	}{{"tax-report", 1}, {"import", 1}, {"ocr-page", 3}, {"tokens", 11}} {
		got := bills.Total(want.feature, "cus_ada")
		fmt.Printf("  %-10s %2d\n", want.feature, got)
		if got != want.quantity {
			err = errors.Join(err, fmt.Errorf("%s: billed %d, want %d", want.feature, got, want.quantity))
		}
	}
	return err
}

// wrap: the metered function has the signature of the function.
func wrap(ctx context.Context, m *meter.Meter) error {
	report := meter.Wrap(m.Feature("tax-report"), taxReport)

	text, err := report(ctx, 2025)
	if err != nil {
		return err
	}
	fmt.Println("Wrap:   ", text)

	_, err = report(ctx, 1800) // an error is not counted
	fmt.Println("Wrap:   ", err, "- not counted")
	_, err = report(context.Background(), 2025) // nobody to bill: taxReport never runs
	fmt.Println("Wrap:   ", err)
	if !errors.Is(err, meter.ErrNoCaller) {
		return fmt.Errorf("a call without a caller gave %w", err)
	}
	return nil
}

func taxReport(_ context.Context, year int) (string, error) {
	if year < 1900 {
		return "", fmt.Errorf("no taxes in %d", year)
	}
	return fmt.Sprintf("the taxes of %d", year), nil
}

// do: Do for what returns an error only, DoValue for a value, too. The function may
// say how much it was.
func do(ctx context.Context, m *meter.Meter) error {
	err := meter.Do(ctx, m.Feature("import"), func(context.Context) error { return nil })
	if err != nil {
		return err
	}
	pages, err := meter.DoValue(ctx, m.Feature("ocr-page", meter.Unit("page")), func(ctx context.Context) ([]string, error) {
		pages := []string{"one", "two", "three"}
		return pages, meter.SetQuantity(ctx, int64(len(pages)))
	})
	fmt.Println("DoValue:", len(pages), "pages")
	return err
}

// seq: each element is in the ledger before the consumer sees it, so that neither a
// crash nor a consumer that stops early gives anything away.
func seq(ctx context.Context, m *meter.Meter) error {
	length := func(word string) int64 { return int64(len(word)) }
	fmt.Print("Seq:     ")
	for word, err := range meter.Seq(ctx, m.Feature("tokens"), words("never gonna stop"), length) {
		if err != nil {
			return err
		}
		fmt.Print(word, " ")
		if word == "gonna" {
			break // "stop" is neither made nor billed; "never gonna" is
		}
	}
	fmt.Println("- and the rest was not asked for")
	// Another stream fails after its first element.
	for _, err := range meter.Seq(ctx, m.Feature("tokens"), words("a \x00"), length) {
		if err != nil {
			fmt.Println("Seq:    ", err, "- its first token is counted")
		}
	}
	return nil
}

func words(text string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for word := range strings.FieldsSeq(text) {
			if word == "\x00" {
				yield("", errors.New("the model went away"))
				return
			}
			if !yield(word, nil) {
				return
			}
		}
	}
}
