package meter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
)

// memory opens a meter as the other examples use it. Real programs set Dir to a
// directory.
func memory(change ...func(*meter.Config)) (*meter.Meter, *memsink.Sink) {
	biller := memsink.New()
	cfg := meter.Config{Dir: meter.InMemory, Sinks: []meter.Route{{Name: "memory", Sink: biller}}}
	for _, c := range change {
		c(&cfg)
	}
	m, err := meter.Open(cfg)
	if err != nil {
		panic(err)
	}
	return m, biller
}

func ExampleOpen() {
	biller := memsink.New() // stripesink.New(…), filesink.New(…), your own
	m, err := meter.Open(meter.Config{
		Dir:      meter.InMemory, // "usage": counts survive a crash
		Sinks:    []meter.Route{{Name: "memory", Sink: biller}},
		Identify: meter.KeyHeader("X-License-Key"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	report := m.Feature("tax-report")
	if err := report.Add(context.Background(), "cus_1", 3); err != nil {
		fmt.Println(err)
	}

	// Not the context of signal.NotifyContext: it has ended by now.
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("billed:", biller.Total("tax-report", "cus_1"))
	// Output: billed: 3
}

// Every fault is reported at once.
func ExampleOpen_faults() {
	_, err := meter.Open(meter.Config{
		Sinks:  []meter.Route{{Name: "stripe"}},
		Window: time.Millisecond,
	})
	fmt.Println(err)
	// Output:
	// meter: Config.Dir: required; meter.InMemory accepts that a crash loses counts
	// meter: Config.Window: 1ms: must be at least 1s
	// meter: Config.Sinks[0] ("stripe"): Sink: required
}

// Moving from one biller to another: each record goes to one of them.
func ExampleRoute() {
	before, after := memsink.New(), memsink.New()
	cutover := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	m, err := meter.Open(meter.Config{Dir: meter.InMemory, Sinks: []meter.Route{
		{Name: "legacy", Sink: before, Match: func(r sink.Record) bool { return r.Start.Before(cutover) }},
		{Name: "new", Sink: after, Match: func(r sink.Record) bool { return !r.Start.Before(cutover) }},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	_ = m.Feature("tax-report").Add(ctx, "cus_1", 1)
	_ = m.Shutdown(ctx)
	fmt.Println("legacy:", before.Total("tax-report", "cus_1"), "new:", after.Total("tax-report", "cus_1"))
	// Output: legacy: 0 new: 1
}

func ExampleMeter_Flush() {
	m, biller := memory(func(c *meter.Config) { c.Window = meter.OnFlush }) // serverless
	ctx := context.Background()
	_ = m.Feature("tax-report").Add(ctx, "cus_1", 2)
	if err := m.Flush(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println(biller.Total("tax-report", "cus_1"))
	// Output: 2
}

// Unhappy is a sink that fails one feature.
type unhappy struct{ *memsink.Sink }

func (unhappy) Prepare(_ context.Context, features []sink.Feature) error {
	errs := make([]error, len(features))
	for i, f := range features {
		if f.Name == "seats" {
			errs[i] = errors.New("the meter of seats would sum a max")
		}
	}
	return &sink.BatchError{Errs: errs}
}

func ExampleMeter_Prepare() {
	m, _ := memory(func(c *meter.Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.Sinks[0].Sink = unhappy{memsink.New()}
	})
	m.Feature("tax-report")
	m.Feature("seats", meter.Kind(sink.Max))
	fmt.Println(m.Prepare(context.Background()) != nil)
	// Output: true
}

func ExampleMeter_Health() {
	m, _ := memory()
	fmt.Println(m.Health())
	_ = m.Shutdown(context.Background())
	fmt.Println(m.Health())
	// Output:
	// <nil>
	// meter: closed
}

func ExampleMeter_Shutdown() {
	m, _ := memory(func(c *meter.Config) {
		c.Sinks[0].Sink = sink.Func(func(context.Context, []sink.Record) error { return sink.ErrNotApplied })
	})
	_ = m.Feature("tax-report").Add(context.Background(), "cus_1", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no time left: nothing is delivered, everything is kept
	left, ok := errors.AsType[*meter.ShutdownError](m.Shutdown(ctx))
	fmt.Println(ok, left.Pending, "durable:", left.Durable)
	// Output: true 1 durable: false
}
