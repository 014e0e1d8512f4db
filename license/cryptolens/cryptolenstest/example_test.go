package cryptolenstest_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
)

// A reply that gets lost: only the API knows whether the usage was recorded.
func Example() {
	srv := cryptolenstest.New()
	key := srv.AddKey(cryptolenstest.Key{ProductID: 3646})
	srv.Script(
		cryptolenstest.Fault{Answer: cryptolenstest.Drop},                // before it was recorded
		cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true}, // after
	)
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: "token", BaseURL: cryptolenstest.URL, HTTPClient: srv.Client()})
	for range 3 {
		err := client.RecordUsage(context.Background(), 3646, license.NewKey(key.Key), 5)
		fmt.Println("known to be recorded:", err == nil, "recorded:", srv.Total(3646, key.Key))
	}
	// Output:
	// known to be recorded: false recorded: 0
	// known to be recorded: false recorded: 5
	// known to be recorded: true recorded: 10
}
