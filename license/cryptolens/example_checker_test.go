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

// Activate answers with a license, too, which is worth nothing before it is verified.
func ExampleSigned_Verify() {
	srv := cryptolenstest.New() // in production, api.cryptolens.io
	key := license.NewKey(srv.AddKey(cryptolenstest.Key{ProductID: 3646, MaxNoOfMachines: 1}).Key)
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})

	signed, err := client.Activate(context.Background(), 3646, key, cryptolens.Activation{Machine: "press-7"})
	if err != nil {
		panic(err)
	}
	l, err := signed.Verify(3646, key, srv.PublicKeyXML())
	fmt.Println(l.ActivatedMachines[0].Mid, err)
	signed.Signature = "AQAB"
	_, err = signed.Verify(3646, key, srv.PublicKeyXML())
	fmt.Println(err)
	// Output:
	// press-7 <nil>
	// cryptolens: the license is not signed by any of the public keys: it was changed, or the vendor's key is another one
}
