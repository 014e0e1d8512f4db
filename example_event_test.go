package meter_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter"
)

func ExampleFeature_AddEvent() {
	m, _ := memory()
	orders := m.Feature("orders")
	ctx := context.Background()
	message := meter.Event{ID: "orders/0/4711", Subject: "cus_1", Quantity: 3}
	fmt.Println(orders.AddEvent(ctx, message))
	fmt.Println(orders.AddEvent(ctx, message)) // delivered again
	fmt.Println(orders.Total("cus_1").Quantity)

	message.Quantity = 4
	err := orders.AddEvent(ctx, message)
	fmt.Println(errors.Is(err, meter.ErrConflict))
	// Output:
	// <nil>
	// <nil>
	// 3
	// true
}

// An import tells what was used days ago: it is billed in the window in which it was.
func ExampleEvent() {
	m, _ := memory()
	storage := m.Feature("storage")
	yesterday := time.Now().AddDate(0, 0, -1)
	row := meter.Event{ID: "import-7/row-12", Subject: "cus_1", Quantity: 40, Time: yesterday}
	fmt.Println(storage.AddEvent(context.Background(), row))

	row.ID, row.Time = "import-7/row-13", time.Now().Add(time.Hour)
	fmt.Println(errors.Is(storage.AddEvent(context.Background(), row), meter.ErrTime))
	// Output:
	// <nil>
	// true
}

// A client that got no answer sends its request again. The handler remembers what it
// answered, here in a map.
func ExampleIdempotencyKey() {
	m, _ := memory()
	report := m.Feature("tax-report")
	answers := map[string]string{}
	h := meter.Middleware(report, byCustomer, meter.IdempotencyKey())(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Customer") + " " + r.Header.Get("Idempotency-Key")
		if answers[key] == "" {
			answers[key] = fmt.Sprint("report ", len(answers)+1)
		}
		fmt.Fprintln(w, answers[key])
	}))
	for _, key := range []string{"k-1", "k-1", "k-2"} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/reports", nil)
		r.Header.Set("X-Customer", "cus_1")
		r.Header.Set("Idempotency-Key", key)
		h.ServeHTTP(w, r)
		fmt.Print(w.Body)
	}
	fmt.Println("counted:", report.Total("cus_1").Quantity)
	// Output:
	// report 1
	// report 1
	// report 2
	// counted: 2
}
