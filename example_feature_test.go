package meter_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

func ExampleMeter_Feature() {
	m, biller := memory()
	ctx := context.Background()
	tokens := m.Feature("tokens", meter.Unit("token"))
	seats := m.Feature("seats", meter.Kind(sink.Max), meter.Unit("seat"))
	_ = tokens.Add(ctx, "cus_1", 3100)
	_ = seats.Set(ctx, "cus_1", 12)
	_ = seats.Set(ctx, "cus_1", 9)
	_ = m.Flush(ctx)
	fmt.Println(biller.Total("tokens", "cus_1"), biller.Total("seats", "cus_1"))
	// Output: 3100 12
}

func ExampleFeature_Add() {
	m, _ := memory()
	report := m.Feature("tax-report")
	fmt.Println(report.Add(context.Background(), "cus_1", 3))
	fmt.Println(report.Total("cus_1").Quantity)
	// Output:
	// <nil>
	// 3
}

func ExampleFeature_Set() {
	m, biller := memory()
	plan := m.Feature("storage-gb", meter.Kind(sink.Last))
	ctx := context.Background()
	_ = plan.Set(ctx, "cus_1", 40)
	_ = plan.Set(ctx, "cus_1", 0)
	_ = m.Flush(ctx)
	fmt.Println(biller.Total("storage-gb", "cus_1"))
	// Output: 0
}

func ExampleFeature_Counter() {
	m, _ := memory()
	rows := m.Feature("rows")
	counter := rows.Counter("cus_1") // once, outside of the loop
	for range 1000 {
		if err := counter.Add(context.Background(), 1); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(rows.Total("cus_1").Quantity)
	// Output: 1000
}

func ExampleFeature_Total() {
	m, _ := memory()
	report := m.Feature("tax-report")
	_ = report.Add(context.Background(), "cus_1", 3)
	t := report.Total("cus_1")
	fmt.Println(t.Quantity, "of", t.Limit, "from day", t.Start.Day())
	// Output: 3 of -1 from day 1
}

func ExampleWithDimension() {
	m, biller := memory()
	tokens := m.Feature("tokens")
	ctx := meter.WithDimension(context.Background(), "model", "large")
	_ = tokens.Add(ctx, "cus_1", 100)
	_ = m.Flush(ctx)
	for _, r := range biller.Records() {
		fmt.Println(r.Subject, r.Dimensions, r.Quantity)
	}
	fmt.Println(tokens.Add(meter.WithDimension(ctx, "", "x"), "cus_1", 1))
	// Output:
	// cus_1 map[model:large] 100
	// meter: bad feature, subject or dimension: dimension name: empty
}
