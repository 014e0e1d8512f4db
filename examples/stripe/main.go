// Stripe bills API calls through a Stripe billing meter. No account is needed: it
// uses the first of these that is there, and says which.
//
//	STRIPE_KEY       Stripe itself, in test mode; live keys are refused. Set STRIPE_METER
//	                 to a meter's event name and STRIPE_CUSTOMER to a cus_… as well
//	stripe-mock      Stripe's own mock, when it runs at http://localhost:12111, or at
//	                 the URL in STRIPE_MOCK
//	otherwise        a stand-in within this process (standin.go), which loses a reply
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/stripesink"
)

const calls = 5

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stripe:", err)
		os.Exit(1)
	}
}

func run() error {
	biller, err := choose()
	if err != nil {
		return err
	}
	defer biller.close()
	fmt.Println("Billing through", biller.what)

	m, err := meter.Open(meter.Config{
		Dir:    meter.InMemory, // "usage" in a real program: a directory survives crashes
		Sinks:  []meter.Route{{Name: "stripe", Sink: stripesink.New(biller.config)}},
		Logger: slog.New(slog.DiscardHandler),
		Window: meter.OnFlush, // sent by Flush here, so that the story is always the same; you would leave this out
	})
	if err != nil {
		return err
	}
	api := m.Feature("api-call")
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	// At start, before anybody is billed: is there such a meter, and does it add up?
	if err := m.Prepare(ctx); err != nil {
		return errors.Join(err, m.Shutdown(ctx))
	}
	for range calls {
		if err := api.Add(ctx, biller.customer, 1); err != nil {
			return err
		}
	}
	if err := errors.Join(m.Flush(ctx), m.Shutdown(ctx)); err != nil {
		return err
	}
	books := m.Books()
	fmt.Printf("%d calls of %s, one meter event:\n%v", calls, biller.customer, books)
	if books[0].Delivered != calls {
		return fmt.Errorf("%d of %d calls were delivered", books[0].Delivered, calls)
	}
	return errors.Join(books.Check(), biller.verify())
}

// biller is where the events go.
type biller struct {
	what     string
	customer string
	config   stripesink.Config
	verify   func() error // asks the other side what it has billed, where it can tell
	close    func()
}

func choose() (biller, error) {
	b := biller{
		customer: "cus_ada",
		verify:   func() error { return nil },
		close:    func() {},
	}
	event := stripesink.Meter{EventName: "api_call"}
	switch key := os.Getenv("STRIPE_KEY"); {
	case key != "":
		if !strings.HasPrefix(key, "sk_test_") && !strings.HasPrefix(key, "rk_test_") {
			return b, errors.New("STRIPE_KEY is no test key (sk_test_… or rk_test_…): this example would bill somebody")
		}
		b.what = "Stripe, test mode; look for the event in the dashboard"
		b.customer = os.Getenv("STRIPE_CUSTOMER")
		if b.customer == "" {
			return b, errors.New("STRIPE_CUSTOMER is empty: set it to a test customer, cus_…")
		}
		event.EventName = cmp.Or(os.Getenv("STRIPE_METER"), event.EventName)
		b.config.Key = key
	case mockRuns():
		b.what = "stripe-mock; it checks the requests and remembers nothing"
		event = stripesink.Meter{EventName: "test-meter-event-name", CustomerKey: "customer"} // the one that it knows
		b.config.Key, b.config.BaseURL = "sk_test_123", mockURL
	default:
		stripe := newStandIn(event.EventName, b.customer)
		b.what = "a stand-in for Stripe within this process; no network"
		b.config.Key, b.config.BaseURL = "sk_test_standin", stripe.http.URL
		b.verify = func() error { return stripe.verify(b.customer, calls) }
		b.close = stripe.http.Close
	}
	b.config.Meters = map[string]stripesink.Meter{"api-call": event}
	return b, nil
}

var mockURL = cmp.Or(os.Getenv("STRIPE_MOCK"), "http://localhost:12111")

func mockRuns() bool {
	client := http.Client{Timeout: 2 * time.Second}
	r, err := http.NewRequest(http.MethodGet, mockURL+"/v1/billing/meters", nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer sk_test_123")
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK && answer.Header.Get("Stripe-Mock-Version") != ""
}
