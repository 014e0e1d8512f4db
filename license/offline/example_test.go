package offline_test

import (
	"context"
	"fmt"
	"testing/fstest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/license/offline"
)

// The vendor asks for a license where there is a network, and hands it over as a file.
func Example() {
	ctx := context.Background()
	srv := cryptolenstest.New() // in production, api.cryptolens.io
	key := license.NewKey(srv.AddKey(cryptolenstest.Key{ProductID: 3646, GlobalID: 70123}).Key)
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})
	signed, err := client.GetKey(ctx, 3646, key)
	if err != nil {
		panic(err)
	}

	checker := offline.New(offline.Config{
		Files:      fstest.MapFS{"acme.skm": {Data: signed.Body}}, // as a rule, os.DirFS("/etc/acme/licenses")
		MaxAge:     90 * 24 * time.Hour,
		ProductID:  3646,
		PublicKeys: []string{srv.PublicKeyXML()},
	})
	for _, k := range []license.Key{key, license.NewKey("AAAAA-BBBBB-CCCCC-DDDDD")} {
		v, err := checker.Check(ctx, license.Query{Key: k, Feature: "tax-report"})
		fmt.Println(v.Status == license.Allowed, v.Subject, v.Reason, err)
	}
	// Output:
	// true 70123  <nil>
	// false  not-found <nil>
}

// A file that was changed by hand is refused by name, and does not keep the program
// from starting.
func ExampleChecker_Health() {
	checker := offline.New(offline.Config{
		Files:      fstest.MapFS{"acme.skm": {Data: []byte(`{"licenseKey":"e30=","signature":"AQAB","result":0,"message":""}`)}},
		MaxAge:     offline.AnyAge,
		ProductID:  3646,
		PublicKeys: []string{cryptolenstest.New().PublicKeyXML()},
	})
	fmt.Println(checker.Validate())
	fmt.Println(checker.Health())
	// Output:
	// <nil>
	// offline: "acme.skm": the license is not signed by any of the public keys: it was changed, or the vendor's key is another one
}
