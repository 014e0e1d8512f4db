package cryptolens_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

// A customer buys 100 credits, which the vendor adds to a data object of the license
// key. meter.Prepaid draws from there.
func ExampleNewBalance() {
	srv := cryptolenstest.New()
	key := license.NewKey(srv.AddKey(cryptolenstest.Key{ProductID: 3646}).Key)
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})
	of := cryptolens.Owner{ProductID: 3646, Key: key}

	ctx := context.Background()
	if _, err := client.AddDataObject(ctx, of, cryptolens.DataObject{Name: "credits"}); err != nil {
		panic(err)
	}
	if err := client.Increment(ctx, of, cryptolens.Ref{Name: "credits"}, 100); err != nil {
		panic(err)
	}

	balance := cryptolens.NewBalance(cryptolens.BalanceConfig{
		Token: "token", ProductID: 3646, Object: "credits", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client(),
		Key: func(context.Context, string) (license.Key, error) { return key, nil },
	})
	left, err := balance.Read(ctx, "cus_1")
	fmt.Println(left.Units, err)
	// Output: 100 <nil>
}
