package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meterevent"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

// deliveryTables bill: what it takes until a use is with the biller.
func deliveryTables() []table {
	const (
		payers   = 100
		uses     = 1_000_000 // of a meter
		messages = 1000      // where each use is one
	)
	billing := table{
		name: "bill by Stripe", what: "one use by one of 100 customers, until a local server has answered for it",
		heats: []heat{{columns: []string{"ns", "ns of processors", "requests"}, contenders: []contender{
			{"meter: stripesink", ours, func(s *stage) turn {
				server := newBiller()
				s.defers(server.Close)
				m := s.meter(meter.Config{
					Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler),
					Sinks: []meter.Route{{Name: "stripe", Sink: noPrepare{unpaced{server.sink()}}}},
				})
				f, names, ctx := m.Feature("report"), customers(payers), context.Background()
				return server.billing(uses, func() {
					for i := range uses {
						must(f.Add(ctx, names[i%payers], 1))
					}
					must(m.Flush(ctx))
				})
			}},
			{"peer: meterevent.New for each use", peer, func(s *stage) turn {
				server := newBiller()
				s.defers(server.Close)
				events, names := meterevent.Client{Key: "sk_test_bench", B: quietBackend(server.URL)}, customers(payers)
				return server.billing(messages, func() {
					for i := range messages {
						_, err := events.New(&stripe.BillingMeterEventParams{
							EventName: stripe.String("tax_report"),
							Payload:   map[string]string{"stripe_customer_id": names[i%payers], "value": "1"},
						})
						must(err)
					}
				})
			}},
		}}},
	}
	records := table{name: "deliver", what: "one record to a sink that takes all, from the end of its window until its outcome is on disk; columns are records", unit: "ns"}
	for _, n := range []int{1000, 10_000, 100_000, 1_000_000} {
		h := heat{columns: []string{count(n)}, series: n}
		for _, way := range []struct {
			name string
			dir  string
		}{{"meter", ""}, {"meter: in memory", meter.InMemory}} {
			h.contenders = append(h.contenders, contender{way.name, ours, func(s *stage) turn {
				m := s.meter(meter.Config{
					Dir: way.dir, Window: meter.OnFlush, MaxDisk: 16 << 30,
					Sinks: []meter.Route{{Name: "all", Sink: sink.Func(func(context.Context, []sink.Record) error { return nil })}},
				})
				f, names, ctx := m.Feature(feature), customers(n), context.Background()
				return func() []float64 {
					for _, name := range names {
						must(f.Add(ctx, name, 1))
					}
					time.Sleep(1100 * time.Millisecond) // windows begin a second apart: Flush would wait
					return []float64{timed(func() { must(m.Flush(ctx)) }) / float64(n)}
				}
			}})
		}
		records.heats = append(records.heats, h)
	}
	return []table{billing, records}
}

// billing says what one of n uses took, and that all of them were billed.
func (b *biller) billing(n int, work func()) turn {
	return func() []float64 {
		requests, billed := b.state()
		processors := processorTime()
		took := timed(work)
		processors = processorTime() - processors
		r, sum := b.state()
		if sum-billed != int64(n) {
			panic("not all was billed")
		}
		of := float64(n)
		return []float64{took / of, float64(processors) / of, float64(r-requests) / of}
	}
}
