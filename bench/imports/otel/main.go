// Otel is a web server with a counter of the OpenTelemetry SDK.
package main

import (
	"net/http"

	"go.opentelemetry.io/otel/sdk/metric"
)

func main() {
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	_, _ = provider.Meter("bench").Int64Counter("uses")
	_ = http.ListenAndServe("localhost:0", nil)
}
