// Stripego is a web server that bills each use by itself.
package main

import (
	"net/http"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meterevent"
)

func main() {
	stripe.Key = "sk_test"
	http.HandleFunc("/", func(http.ResponseWriter, *http.Request) {
		_, _ = meterevent.New(&stripe.BillingMeterEventParams{EventName: stripe.String("report")})
	})
	_ = http.ListenAndServe("localhost:0", nil)
}
