// Prometheus is a web server with a counter for a scraper.
package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	prometheus.MustRegister(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "uses"}, []string{"customer"}))
	http.Handle("/metrics", promhttp.Handler())
	_ = http.ListenAndServe("localhost:0", nil)
}
