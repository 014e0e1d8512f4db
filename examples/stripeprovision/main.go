// Stripeprovision sets up in Stripe what a vendor otherwise makes by hand: a product,
// a billing meter with a tiered price, and a legacy metered price with the properties
// of the license key that it sells. It does so twice, and makes everything once. Then
// it subscribes a customer, and tries to bill the same one in another currency.
//
// No account is needed: it sets up a stand-in within this process. With STRIPE_KEY, a
// key of test mode, it does the real thing, for the customer in STRIPE_CUSTOMER if
// there is one; look at it in the dashboard, and archive it there.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stripeprovision:", err)
		os.Exit(1)
	}
}

// account is the Stripe account to set up.
type account struct {
	key, customer, url string
	client             *http.Client
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	a := account{key: os.Getenv("STRIPE_KEY"), customer: os.Getenv("STRIPE_CUSTOMER")}
	if a.key == "" {
		fmt.Println("Setting up a stand-in for Stripe within this process")
		srv := stripetest.New()
		client, stop := srv.Pipe()
		defer stop()
		a = account{key: "sk_test_standin", customer: srv.AddCustomer(stripetest.Customer{}).ID, url: stripetest.URL, client: client}
	} else {
		fmt.Println("Setting up Stripe, test mode")
	}
	made, err := a.provision(ctx, "meter-example", "usd")
	if err != nil {
		return err
	}
	if _, err := a.provision(ctx, "meter-example", "usd"); err != nil { // as at the next start
		return err
	}
	if a.customer == "" {
		fmt.Println("STRIPE_CUSTOMER is empty: nobody is subscribed")
		return nil
	}
	if err := a.subscribe(ctx, made); err != nil {
		return err
	}
	euros, err := a.provision(ctx, "meter-example-eur", "eur")
	if err != nil {
		return err
	}
	err = a.subscribe(ctx, euros)
	if !errors.Is(err, stripesink.ErrCurrency) {
		return fmt.Errorf("a second currency was not refused: %w", err)
	}
	fmt.Println("Refused:", err)
	return nil
}

// provision sells two features of a product in a currency.
func (a account) provision(ctx context.Context, product, currency string) (stripesink.Provisioned, error) {
	made, err := stripesink.Provision(ctx, stripesink.ProvisionConfig{
		Key:      a.key,
		Mode:     stripesink.TestMode, // refuses a live key: this is only an example
		Product:  stripesink.Product{ID: product, Name: "Tax Suite", CryptolensID: 3349},
		Currency: currency,
		Tariffs: map[string]stripesink.Tariff{
			"tax-report": { // the first 100 of a month are free, then it is 25 cents each, beyond 1,000 it is 10, and 5 dollars once
				Meter: stripesink.Meter{EventName: product + "-reports"},
				Tiers: []stripesink.Tier{{UpTo: 100}, {UpTo: 1000, UnitAmount: "25"}, {UnitAmount: "10", FlatAmount: "500"}},
			},
			"import": { // half a cent each, counted by usage records
				UnitAmount: "0.5",
				License:    `{"F3":true,"MaxNoOfMachines":1}`,
			},
		},
		BaseURL:    a.url,
		HTTPClient: a.client,
	})
	for _, thing := range made.Created {
		fmt.Println("  made", thing)
	}
	if err == nil && made.Created == nil {
		fmt.Println("  everything of", product, "is there: nothing was made")
	}
	return made, err
}

func (a account) subscribe(ctx context.Context, made stripesink.Provisioned) error {
	done, err := stripesink.Subscribe(ctx, stripesink.SubscribeConfig{
		Key:          a.key,
		Mode:         stripesink.TestMode,
		Customer:     a.customer,
		Prices:       slices.Sorted(maps.Values(made.Prices)),
		LicenseKeyID: "4711",
		BaseURL:      a.url,
		HTTPClient:   a.client,
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s is subscribed: %s, with %d items\n", a.customer, done.ID, len(done.Items))
	return nil
}
