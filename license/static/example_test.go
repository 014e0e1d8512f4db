package static_test

import (
	"context"
	"fmt"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/static"
)

func Example() {
	checker := static.New(static.Config{
		Keys: map[license.Key]static.Grant{
			license.NewKey("AAAAA-BBBBB"): {Subject: "cus_acme", Features: []string{"tax-report"}},
			license.NewKey("CCCCC-DDDDD"): {Subject: "cus_late", Denied: license.Unpaid},
		},
	})
	for _, q := range []license.Query{
		{Key: license.NewKey("AAAAA-BBBBB"), Feature: "tax-report"},
		{Key: license.NewKey("AAAAA-BBBBB"), Feature: "export"},
		{Key: license.NewKey("CCCCC-DDDDD"), Feature: "tax-report"},
		{Key: license.NewKey("guessed"), Feature: "tax-report"},
	} {
		v, err := checker.Check(context.Background(), q)
		fmt.Println(v.Status == license.Allowed, v.Subject, v.Reason, err)
	}
	// Output:
	// true cus_acme  <nil>
	// false cus_acme not-entitled <nil>
	// false cus_late unpaid <nil>
	// false  not-found <nil>
}
