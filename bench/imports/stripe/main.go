// Stripe is a web server that counts and bills by Stripe.
package main

import (
	"net/http"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/stripesink"
)

func main() {
	stripe := stripesink.New(stripesink.Config{Key: "sk_test", Meters: map[string]stripesink.Meter{"report": {EventName: "report"}}})
	m, err := meter.Open(meter.Config{Dir: "usage", Sinks: []meter.Route{{Name: "stripe", Sink: stripe}}})
	if err != nil {
		panic(err)
	}
	http.Handle("/", meter.Middleware(m.Feature("report"))(http.NotFoundHandler()))
	_ = http.ListenAndServe("localhost:0", nil)
}
