package main

import (
	"context"
	"flag"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meterevent"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
)

// stripeDays are the days that Stripe may have.
var stripeDays = []struct {
	name string
	set  func(*biller)
}{
	{"fine", func(*biller) {}},
	{"1% lost replies", func(b *biller) { b.lost = 0.01 }},
	{"429 storm", func(b *biller) { b.storm = time.Second }},
}

const stripeCustomers = 100

// BenchmarkStripe bills invocations of 100 customers: through a meter, and by one
// meter event each, as the SDK's documentation shows. billed/count is 1 where
// every invocation was billed once.
func BenchmarkStripe(b *testing.B) {
	for _, day := range stripeDays {
		b.Run("meter/"+day.name, func(b *testing.B) {
			server := newBiller()
			b.Cleanup(server.Close)
			day.set(server)
			m, err := meter.Open(meter.Config{
				Dir: b.TempDir(), Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler),
				Sinks: []meter.Route{{Name: "stripe", Sink: noPrepare{unpaced{server.sink()}}}},
			})
			require.NoError(b, err)
			ctx := context.Background()
			report := m.Feature("report")
			counts := 0
			for b.Loop() {
				if err := report.Add(ctx, customer(counts%stripeCustomers), 1); err != nil {
					b.Fatal(err)
				}
				counts++
			}
			for m.Flush(ctx) != nil { // a bad day: until it is through
			}
			server.report(b, counts)
			require.NoError(b, m.Shutdown(ctx))
		})
		b.Run("meterevent.New/"+day.name, func(b *testing.B) {
			server := newBiller()
			b.Cleanup(server.Close)
			day.set(server)
			events := meterevent.Client{Key: "sk_test_bench", B: quietBackend(server.URL)}
			counts, failed := 0, 0
			for b.Loop() {
				_, err := events.New(&stripe.BillingMeterEventParams{
					EventName: stripe.String("tax_report"),
					Payload:   map[string]string{"stripe_customer_id": customer(counts % stripeCustomers), "value": "1"},
				})
				counts++
				if err != nil {
					failed++ // and now? The count is in nobody's hands
				}
			}
			server.report(b, counts)
			b.ReportMetric(float64(failed)/float64(counts), "failed/count")
		})
	}
}

func (b *biller) report(tb *testing.B, counts int) {
	requests, billed := b.state()
	tb.ReportMetric(float64(requests)*1e6/float64(counts), "requests/Mcount")
	tb.ReportMetric(float64(billed)/float64(counts), "billed/count")
}

var backlog = flag.Int("backlog", 2_000, "records of TestBacklogDrains")

// TestBacklogDrains leaves a sink down until many records wait, and lets it go: they
// leave at the rate that the sink states, each once, in bounded memory. A million,
// which takes some minutes:
//
//	go test -run TestBacklogDrains -backlog 1000000 -timeout 60m -v .
func TestBacklogDrains(t *testing.T) {
	server := newBiller()
	t.Cleanup(server.Close)
	m, err := meter.Open(meter.Config{
		Dir: t.TempDir(), Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler), MaxDisk: 8 << 30,
		Sinks: []meter.Route{{Name: "stripe", Sink: noPrepare{paced{server.sink()}}}},
	})
	require.NoError(t, err)
	ctx := context.Background()
	report := m.Feature("report")
	for i := range *backlog {
		require.NoError(t, report.Add(ctx, customer(i), 2))
	}
	before := heap()
	began, peak, stop := time.Now(), uint64(0), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				peak = max(peak, heap())
			}
		}
	})
	require.NoError(t, m.Flush(ctx))
	took := time.Since(began)
	close(stop)
	watching.Wait()
	requests, billed := server.state()
	require.EqualValues(t, 2**backlog, billed)
	require.Equal(t, *backlog, requests)
	rate := float64(*backlog) / took.Seconds()
	t.Logf("%d records in %v: %.0f a second of %d allowed; heap before %d MiB, at most %d MiB meanwhile (the server's memory of IDs included)",
		*backlog, took.Round(time.Millisecond), rate, drainRate, before>>20, peak>>20)
	require.Less(t, rate, drainRate*1.1+float64(drainRate)/took.Seconds())
	require.NoError(t, m.Shutdown(ctx))
}

// drainRate is above Stripe's, so that a million does not take all day.
const drainRate = 4000

type paced struct{ *stripesink.Sink }

func (p paced) Limits() sink.Limits {
	l := p.Sink.Limits()
	l.Rate, l.Concurrency = drainRate, 16
	return l
}
