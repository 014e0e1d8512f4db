package meter_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/inprocess/meter"
)

func identify(id meter.Identify, change func(*http.Request)) {
	r := httptest.NewRequest("GET", "/", nil)
	change(r)
	who, err := id(r)
	fmt.Println(who.Key.Reveal(), err)
}

func ExampleKeyHeader() {
	id := meter.KeyHeader("X-License-Key")
	identify(id, func(r *http.Request) { r.Header.Set("X-License-Key", "K-1") })
	identify(id, func(r *http.Request) { r.Header["X-License-Key"] = []string{"K-1", "K-2"} })
	// Output:
	// K-1 <nil>
	//  meter: refused: no-key
}

func ExampleKeyBearer() {
	identify(meter.KeyBearer(), func(r *http.Request) { r.Header.Set("Authorization", "Bearer K-1") })
	// Output: K-1 <nil>
}

func ExampleKeyBasic() {
	identify(meter.KeyBasic(), func(r *http.Request) { r.SetBasicAuth("anybody", "K-1") })
	// Output: K-1 <nil>
}

func ExampleKeyQuery() {
	identify(meter.KeyQuery("key"), func(r *http.Request) { r.URL.RawQuery = "page=2&key=K-1" })
	// Output: K-1 <nil>
}

func ExampleKeyCert() {
	identify(meter.KeyCert(), func(*http.Request) {}) // no TLS, no certificate
	// Output: meter: refused: no-key
}

// The caller as the host's own login has found it.
func ExampleIdentify() {
	type session struct{}
	var byTenant meter.Identify = func(r *http.Request) (meter.Caller, error) {
		tenant, _ := r.Context().Value(session{}).(string)
		return meter.Caller{Subject: tenant}, nil // "" is refused: 401
	}
	who, err := byTenant(httptest.NewRequest("GET", "/", nil))
	fmt.Printf("%q %v\n", who.Subject, err)
	// Output: "" <nil>
}
