package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const (
	testKey  = "sk_test_canary4711"
	customer = "cus_1"
	feature  = "tax-report"
	event    = "tax_report"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func record(n int, quantity int64) sink.Record {
	at := start.Add(time.Duration(n) * time.Minute)
	return sink.Record{
		ID: fmt.Sprintf("01-record-%d", n), Feature: feature, Subject: customer,
		Quantity: quantity, Start: at, End: at.Add(time.Minute), Attempt: 1,
	}
}

// bench is a fake Stripe on a clock of its own, and a sink that leads to it.
type bench struct {
	*stripetest.Server
	sink  *stripesink.Sink
	clock atomic.Int64 // unix nanoseconds
}

func (b *bench) setClock(at time.Time) { b.clock.Store(at.UnixNano()) }

func newBench(t *testing.T, meters ...stripetest.Meter) *bench {
	t.Helper()
	if meters == nil {
		meters = []stripetest.Meter{{EventName: event}}
	}
	b := &bench{Server: stripetest.New(meters...)}
	b.Key, b.AnyCustomer = testKey, true
	b.Now = func() time.Time { return time.Unix(0, b.clock.Load()) }
	b.setClock(start.Add(time.Hour))
	client, stop := b.Pipe()
	t.Cleanup(stop)
	b.sink = newSink(client)
	require.NoError(t, b.sink.Validate())
	return b
}

func newSink(client *http.Client) *stripesink.Sink {
	return stripesink.New(stripesink.Config{
		Key:        testKey,
		Meters:     map[string]stripesink.Meter{feature: {EventName: event}},
		BaseURL:    stripetest.URL,
		HTTPClient: client,
	})
}

// judge says what one Deliver means for each record, as meter's delivery reads it.
func judge(err error, records int) []sink.Outcome {
	errs := make([]error, records)
	for i := range errs {
		errs[i] = err
	}
	if batch, ok := errors.AsType[*sink.BatchError](err); ok {
		errs = batch.Errs
	}
	out := make([]sink.Outcome, records)
	for i := range out {
		switch {
		case len(errs) != records:
			out[i] = sink.InDoubt
		case errs[i] == nil:
			out[i] = sink.Delivered
		case errors.Is(errs[i], sink.ErrRejected):
			out[i] = sink.Rejected
		case errors.Is(errs[i], sink.ErrNotApplied):
			out[i] = sink.Pending
		default:
			out[i] = sink.InDoubt
		}
	}
	return out
}

// deliverAll behaves as meter's delivery: open records are sent again with the
// same body and the next attempt, a doubt stays until success clears it, and the
// clock moves on between the rounds.
func (b *bench) deliverAll(ctx context.Context, t *testing.T, records []sink.Record) []sink.Outcome {
	t.Helper()
	final := make([]sink.Outcome, len(records))
	attempts := make([]int, len(records))
	for range 100 {
		var open []sink.Record
		var at []int
		for i, r := range records {
			if final[i] == sink.Pending || final[i] == sink.InDoubt {
				attempts[i]++
				r.Attempt, r.Doubt = attempts[i], final[i] == sink.InDoubt
				open, at = append(open, r), append(at, i)
			}
		}
		if open == nil {
			return final
		}
		err := b.sink.Deliver(ctx, open)
		for j, o := range judge(err, len(open)) {
			if i := at[j]; o == sink.Delivered || final[i] != sink.InDoubt {
				final[i] = o
			}
		}
		b.clock.Add(int64(time.Minute + sink.RetryDelay(err)))
	}
	return final
}
