package offline_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/offline"
)

// A license file that was changed by hand is refused by name, and does not keep the
// program from starting.
func Example() {
	checker := offline.New(offline.Config{
		Files: fstest.MapFS{ // as a rule, os.DirFS("/etc/acme/licenses")
			"acme.skm": {Data: []byte(`{"licenseKey":"e30=","signature":"AQAB","result":0,"message":""}`)},
		},
		MaxAge:    offline.AnyAge,
		ProductID: 3646,
		PublicKeys: []string{`<RSAKeyValue>
			<Modulus>w7bKShquBSeH84ErHGc1wvoq6pOLLJPLTQqGDlndGKS3eKpcx3igK6l9+NX99plOhJgCTTC3K6rAiYlkrmrnU1CXTq0tz+gmr1ARmV2lyP0pNUgJEH6M8eGtPC8Rc4hUHjEg4cjjJJ7o8AMZfkzNxHhC0QDCxBV4fUyDVpgCJEli1MNLZObBx1IHwY9reOKQjP5PDwgoCVNCyKcI/A338yC55+kcLqBG0rPtVEYwRAAR5p8zJI5tU/7yhqvQEoQwOfRGhk/n2OSpMbd/OCpACydP9q2owQv859qh5X6JyS7LsSs/aXPpIn7hKNUU3nBHFix2APO+evsrMfGkYy9qQw==</Modulus>
			<Exponent>AQAB</Exponent>
		</RSAKeyValue>`},
	})
	fmt.Println(checker.Validate())
	_, err := checker.Check(context.Background(), license.Query{Key: license.NewKey("AAAAA-BBBBB-CCCCC-DDDDD")})
	fmt.Println(err)
	// Output:
	// <nil>
	// offline: no license of this key, and not every file could be read: "acme.skm": the license is not signed by any of the public keys: it was changed, or the vendor's key is another one
}
