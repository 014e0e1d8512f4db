package stripesink_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

func ExampleProvision() {
	srv := stripetest.New() // Stripe itself, in a real program
	client, stop := srv.Pipe()
	defer stop()
	cfg := stripesink.ProvisionConfig{
		Key:      "sk_test_51H7x",
		Mode:     stripesink.TestMode,
		Product:  stripesink.Product{ID: "tax-suite", Name: "Tax Suite"},
		Currency: "usd",
		Tariffs: map[string]stripesink.Tariff{
			"tax-report": { // the first 100 of a month are free
				Meter: stripesink.Meter{EventName: "tax_report"},
				Tiers: []stripesink.Tier{{UpTo: 100}, {UnitAmount: "25"}},
			},
			"seats": { // 20 cents an hour
				Meter: stripesink.Meter{EventName: "seats"}, TimeWindow: stripesink.HourWindow, UnitAmount: "20",
			},
		},
		BaseURL:    stripetest.URL,
		HTTPClient: client,
	}
	for range 2 {
		made, err := stripesink.Provision(context.Background(), cfg)
		fmt.Println(len(made.Created), "made,", len(made.Prices), "prices,", err)
	}
	cfg.Currency = "eur"
	_, err := stripesink.Provision(context.Background(), cfg)
	fmt.Println(errors.Is(err, stripesink.ErrDiffers))
	// Output:
	// 5 made, 2 prices, <nil>
	// 0 made, 2 prices, <nil>
	// true
}

func ExampleSubscribe() {
	srv := stripetest.New()
	srv.AddCustomer(stripetest.Customer{ID: "cus_ada"})
	srv.AddPrice(stripetest.Price{ID: "price_usd"}) // by Provision, in a real program
	srv.AddPrice(stripetest.Price{ID: "price_eur", Currency: "eur"})
	client, stop := srv.Pipe()
	defer stop()
	subscribe := func(price string) {
		done, err := stripesink.Subscribe(context.Background(), stripesink.SubscribeConfig{
			Key: "sk_test_51H7x", Customer: "cus_ada", Prices: []string{price}, LicenseKeyID: "4711",
			BaseURL: stripetest.URL, HTTPClient: client,
		})
		fmt.Println(done.ID != "", done.Found, err)
	}
	subscribe("price_usd")
	subscribe("price_usd")
	subscribe("price_eur")
	// Output:
	// true false <nil>
	// true true <nil>
	// false false stripesink: Stripe bills a customer in one currency: customer cus_ada pays in usd, and the prices are in eur: use prices in usd, or another customer
}
