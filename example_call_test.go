package meter_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter"
)

func ExampleFeature_Begin() {
	m, _ := memory()
	tokens := m.Feature("tokens")
	complete := func(ctx context.Context) error {
		ctx, call, err := tokens.Begin(ctx, meter.Hold(5000))
		defer call.Cancel() // nothing after Commit
		if err != nil {
			return err
		}
		if err := meter.SetQuantity(ctx, 3100); err != nil {
			return err
		}
		return call.Commit()
	}
	fmt.Println(complete(meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"})))
	fmt.Println(complete(context.Background()))
	fmt.Println(tokens.Total("cus_1").Quantity)
	// Output:
	// <nil>
	// meter: refused: no-key: feature "tokens"
	// 3100
}

func ExampleWithCaller() {
	m, _ := memory()
	render := m.Feature("render")
	for _, customer := range []string{"cus_1", "cus_2"} {
		ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: customer})
		_ = meter.Do(ctx, render, func(context.Context) error { return nil })
	}
	fmt.Println(render.Total("cus_1").Quantity, render.Total("cus_2").Quantity)
	// Output: 1 1
}

func ExampleCallFrom() {
	m, _ := memory()
	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"})
	_ = meter.Do(ctx, m.Feature("api"), func(ctx context.Context) error {
		call, _ := meter.CallFrom(ctx)
		// A second feature in one call is counted by hand.
		return m.Feature("export").Add(ctx, call.Caller().Subject, 5)
	})
	fmt.Println(m.Feature("export").Total("cus_1").Quantity)
	// Output: 5
}

func ExampleSetQuantity() {
	fmt.Println(meter.SetQuantity(context.Background(), 3)) // never dropped silently
	// Output: meter: not inside a metered call
}

func ExampleRefusedError() {
	m, _ := memory()
	_, _, err := m.Feature("api").Begin(context.Background())
	if refused, ok := errors.AsType[*meter.RefusedError](err); ok {
		fmt.Println(refused.Reason, refused.Status(), errors.Is(err, meter.ErrNoCaller))
	}
	// Output: no-key 401 true
}
