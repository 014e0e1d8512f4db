// Package stripeapi is the way to Stripe that the sink and the license checker
// share: the SDK's backend without its retries, telemetry and log, over a client
// that sends each write once and keeps the evidence of what happened to it.
package stripeapi

import (
	"net/http"
	"time"

	"github.com/inprocess/meter/internal/evidence"
	"github.com/stripe/stripe-go/v76"
)

// API is a way to Stripe. The key is not part of it: the SDK takes it per call.
//
// Concurrency: safe.
type API struct {
	Backend stripe.Backend
	own     *http.Transport // nil: the client was given, its connections are not ours to close
}

// New returns the way to baseURL ("": Stripe's) over a hardened copy of client
// (nil: one of our own). It does no input or output.
func New(baseURL string, client *http.Client) *API {
	a := &API{}
	hard := http.Client{}
	if client != nil {
		hard = *client
	}
	if hard.Transport == nil {
		a.own = evidence.NewTransport(64, 45*time.Second)
		hard.Transport = a.own
	}
	hard.Transport = &wire{base: hard.Transport}
	hard.Jar = nil
	// net/http would send a redirected body, and the headers, to another host.
	hard.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	if baseURL == "" {
		baseURL = stripe.APIURL
	}
	a.Backend = stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		EnableTelemetry:   stripe.Bool(false),
		HTTPClient:        &hard,
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		MaxNetworkRetries: stripe.Int64(0), // delivery retries, under rules the SDK doesn't know
		URL:               stripe.String(baseURL),
	})
	return a
}

// Close drops the idle connections, unless the client was given.
func (a *API) Close() {
	if a.own != nil {
		a.own.CloseIdleConnections()
	}
}
