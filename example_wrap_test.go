package meter_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/inprocess/meter"
)

func generateReport(_ context.Context, year int) (string, error) {
	if year > 2025 {
		return "", errors.New("the year is not over")
	}
	return fmt.Sprint("report of ", year), nil
}

func customer(subject string) context.Context {
	return meter.WithCaller(context.Background(), meter.Caller{Subject: subject})
}

func ExampleWrap() {
	m, _ := memory()
	report := m.Feature("tax-report")
	generate := meter.Wrap(report, generateReport)
	fmt.Println(generate(customer("cus_1"), 2024))
	fmt.Println(generate(customer("cus_1"), 2030)) // an error is not counted
	fmt.Println(report.Total("cus_1").Quantity)
	// Output:
	// report of 2024 <nil>
	//  the year is not over
	// 1
}

func ExampleDo() {
	m, _ := memory()
	mail := m.Feature("mail")
	err := meter.Do(customer("cus_1"), mail, func(ctx context.Context) error {
		return meter.SetQuantity(ctx, 250) // recipients
	})
	fmt.Println(err, mail.Total("cus_1").Quantity)
	// Output: <nil> 250
}

func ExampleDoValue() {
	m, _ := memory()
	legacy := m.Feature("legacy")
	n, err := meter.DoValue(customer("cus_1"), legacy, func(context.Context) (int, error) {
		return strings.Count("banana", "a"), nil // any function fits into a closure
	})
	fmt.Println(n, err, legacy.Total("cus_1").Quantity)
	// Output: 3 <nil> 1
}

func ExampleQuantity() {
	m, _ := memory()
	docs := m.Feature("docs")
	free := meter.Quantity(0) // checked, and free
	_ = meter.Do(customer("cus_1"), docs, func(context.Context) error { return nil }, free)
	fmt.Println(docs.Total("cus_1").Quantity)
	// Output: 0
}

func ExampleSeq() {
	m, _ := memory()
	tokens := m.Feature("tokens")
	var upstream iter.Seq2[string, error] = func(yield func(string, error) bool) {
		for _, s := range []string{"count", "ing ", "is ", "fun"} {
			if !yield(s, nil) {
				return
			}
		}
	}
	for s, err := range meter.Seq(customer("cus_1"), tokens, upstream, nil) {
		if err != nil || s == "is " {
			break // what was handed over is counted
		}
		fmt.Print(s)
	}
	fmt.Println(tokens.Total("cus_1").Quantity)
	// Output: counting 3
}
