package meter_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

// Customers buy credits, which are the number of a data object of their license key at
// Cryptolens.
func ExamplePrepaid() {
	vendor := cryptolenstest.New() // a Cryptolens within the process
	key := vendor.AddKey(cryptolenstest.Key{ProductID: 3646})
	vendor.AddDataObject(3646, key.Key, "", cryptolenstest.DataObject{Name: "credits", Int: 120})

	credits := cryptolens.NewBalance(cryptolens.BalanceConfig{
		Token: "token", ProductID: 3646, Object: "credits",
		Key: func(context.Context, string) (license.Key, error) { return license.NewKey(key.Key), nil },
		// Sole: true, if this is the only process that draws

		BaseURL: cryptolenstest.URL, HTTPClient: vendor.Client(),
	})
	m, _ := memory()
	api := m.Feature("api", meter.Prepaid(credits, 50))

	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "cus_1"})
	call := func(units int64) error {
		return meter.Do(ctx, api, func(context.Context) error { return nil }, meter.Quantity(units))
	}
	fmt.Println(call(1), call(99))
	refused, _ := errors.AsType[*meter.RefusedError](call(30))
	fmt.Println(refused, refused.Status())

	if err := m.Shutdown(context.Background()); err != nil { // returns what is not used
		panic(err)
	}
	fmt.Println(vendor.DataObjects(3646, key.Key, "")[0].Int, "are left")
	// Output:
	// <nil> <nil>
	// meter: refused: over-quota: feature "api" 402
	// 20 are left
}
