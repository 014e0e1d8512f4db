// Meter is a web server that counts.
package main

import (
	"net/http"

	"github.com/inprocess/meter"
)

func main() {
	m, err := meter.Open(meter.Config{Dir: "usage"})
	if err != nil {
		panic(err)
	}
	http.Handle("/", meter.Middleware(m.Feature("report"))(http.NotFoundHandler()))
	_ = http.ListenAndServe("localhost:0", nil)
}
