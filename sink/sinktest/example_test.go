package sinktest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/sinktest"
)

// invoices is a table with a unique index on the record's ID, and Sink the sink
// that a user wrote for it. It bills sums only, and says so.
type invoices struct {
	mu   sync.Mutex
	rows map[string]sink.Record
}

type invoiceSink struct{ table *invoices }

func (invoiceSink) Limits() sink.Limits { return sink.Limits{DedupeWindow: sink.Forever} }
func (invoiceSink) Kinds() []sink.Kind  { return []sink.Kind{sink.Sum} }

func (s invoiceSink) Deliver(ctx context.Context, records []sink.Record) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", sink.ErrNotApplied, ctx.Err())
	}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for _, r := range records {
		if r.Kind != sink.Sum {
			return fmt.Errorf("invoices hold sums only, not %v: %w", r.Kind, sink.ErrRejected)
		}
	}
	for _, r := range records {
		s.table.rows[r.ID] = r // ON CONFLICT DO NOTHING
	}
	return nil
}

func (i *invoices) total(feature, subject string) (total int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.rows {
		if r.Feature == feature && r.Subject == subject {
			total += r.Quantity
		}
	}
	return total
}

// The ten lines of a user, run for real.
func TestInvoiceSink(t *testing.T) {
	t.Parallel()
	table := &invoices{rows: map[string]sink.Record{}}
	sinktest.Run(t, sinktest.Harness{
		New: func(testing.TB) sink.Sink { return invoiceSink{table} },
		Total: func(_ testing.TB, feature, subject string) int64 {
			return table.total(feature, subject)
		},
		Restart: func(testing.TB, sink.Sink) sink.Sink { return invoiceSink{table} },
	})
}

func ExampleRun() {
	table := &invoices{rows: map[string]sink.Record{}}
	_ = func(t *testing.T) { // TestConformance
		sinktest.Run(t, sinktest.Harness{
			New: func(testing.TB) sink.Sink { return invoiceSink{table} },
			Total: func(_ testing.TB, feature, subject string) int64 {
				return table.total(feature, subject)
			},
		})
	}
}

// A sink that answers for the failed records only, and does not say that it
// takes no levels.
func ExampleCheck() {
	table := &invoices{rows: map[string]sink.Record{}}
	harness := sinktest.Harness{
		New: func(testing.TB) sink.Sink {
			return sink.Func(func(ctx context.Context, records []sink.Record) error {
				if err := (invoiceSink{table}).Deliver(ctx, records); err != nil {
					return &sink.BatchError{Errs: []error{err}}
				}
				return nil
			})
		},
		Total: func(_ testing.TB, feature, subject string) int64 {
			return table.total(feature, subject)
		},
	}
	err := sinktest.Check(nil, harness)
	for _, broken := range err.(interface{ Unwrap() []error }).Unwrap() {
		what, _, _ := strings.Cut(broken.Error(), "\n")
		fmt.Println(what)
	}
	// Output:
	// sinktest: levels: max of 12: record 1 of 1 was answered ErrRejected, want nil
	// sinktest: mixed batch: sink.BatchError has 1 entries for 3 records: it must have one per record, nil for delivered; with any other length the whole batch is in doubt
}
