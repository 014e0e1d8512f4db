package cryptolens_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

func ExampleNewChecker() {
	srv := cryptolenstest.New() // in production, api.cryptolens.io
	acme := srv.AddKey(cryptolenstest.Key{ProductID: 3646, GlobalID: 70123, Features: [8]bool{true}})

	checker := cryptolens.NewChecker(cryptolens.Config{
		Token:      "token",
		ProductID:  3646,
		PublicKeys: []string{srv.PublicKeyXML()},
		Features:   map[string]int{"tax-report": 1, "export": 2},
		BaseURL:    cryptolenstest.URL, HTTPClient: srv.Client(), // leave out in production
	})
	ask := func(feature string) {
		v, err := checker.Check(context.Background(), license.Query{Key: license.NewKey(acme.Key), Feature: feature})
		fmt.Println(v.Status == license.Allowed, v.Subject, v.Reason, err)
	}
	ask("tax-report")
	ask("export")
	srv.ChangeKey(3646, acme.Key, func(k *cryptolenstest.Key) { k.Block = true })
	ask("tax-report")
	// Output:
	// true 70123  <nil>
	// false 70123 not-entitled <nil>
	// false 70123 blocked <nil>
}
