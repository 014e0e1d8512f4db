package stripeapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meterevent"
)

const key = "sk_test_1"

// send posts one event and returns the evidence.
func send(ctx context.Context, api *stripeapi.API) (*stripeapi.Exchange, error) {
	ctx, exchange := stripeapi.Watch(ctx)
	params := &stripe.BillingMeterEventParams{EventName: stripe.String("x"), Payload: map[string]string{"value": "1"}}
	params.Context, params.IdempotencyKey = ctx, stripe.String("key-1")
	_, err := meterevent.Client{B: api.Backend, Key: key}.New(params)
	return exchange, err
}

// The server drops a kept-alive connection under the second request. net/http by
// itself resends it, for it has an Idempotency-Key; here it must come once.
func TestOneRequestOnTheWire(t *testing.T) {
	t.Parallel()
	for _, client := range []*http.Client{nil, {}, {Transport: &http.Transport{}}} {
		var requests atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if requests.Add(1) == 2 {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprint(w, "{}")
		}))
		api := stripeapi.New(server.URL, client)
		exchange, err := send(t.Context(), api)
		require.NoError(t, err)
		require.True(t, exchange.Complete)

		exchange, err = send(t.Context(), api)
		require.Error(t, err)
		require.True(t, exchange.Sent)
		require.Zero(t, exchange.Status)
		require.EqualValues(t, 2, requests.Load())
		api.Close()
		server.Close()
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	for status := 301; status <= 308; status++ {
		server := httptest.NewServer(http.RedirectHandler(other.URL, status))
		exchange, _ := send(t.Context(), stripeapi.New(server.URL, server.Client()))
		require.Equal(t, status, exchange.Status)
		server.Close()
	}
	require.Zero(t, elsewhere.Load())
}

func TestReplyIsBounded(t *testing.T) {
	t.Parallel()
	for size, complete := range map[int]bool{1<<20 - 2: true, 1 << 20: false, 8 << 20: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "{}"+strings.Repeat(" ", size))
		}))
		exchange, err := send(t.Context(), stripeapi.New(server.URL, server.Client()))
		require.Equal(t, complete, err == nil, "%v", err)
		require.Equal(t, complete, exchange.Complete)
		require.Equal(t, 200, exchange.Status)
		require.LessOrEqual(t, len(exchange.Body), 1<<20+1)
		server.Close()
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A transport of somebody else's may do anything with a body, even after it has
// given up. Only a body that nobody touched proves that nothing was sent.
func TestUntouchedBodyIsUnsent(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var late io.Reader
	tests := map[string]struct {
		transport roundTrip
		sent      bool
	}{
		"untouched": {func(*http.Request) (*http.Response, error) { return nil, broken }, false},
		"kept for later": {func(r *http.Request) (*http.Response, error) {
			late = r.Body
			return nil, broken
		}, false},
		"one byte": {func(r *http.Request) (*http.Response, error) {
			_, _ = r.Body.Read(make([]byte, 1))
			return nil, broken
		}, true},
		"closed, then read": {func(r *http.Request) (*http.Response, error) {
			_ = r.Body.Close()
			_, _ = io.ReadAll(r.Body)
			return nil, broken
		}, true},
	}
	for name, test := range tests {
		exchange, err := send(t.Context(), stripeapi.New("", &http.Client{Transport: test.transport}))
		require.ErrorIs(t, err, broken, name)
		require.Equal(t, test.sent, exchange.Sent, name)
	}
	data, err := io.ReadAll(late)
	require.Error(t, err)
	require.Empty(t, data, "nothing leaves after the verdict")
}

func TestNoTelemetry(t *testing.T) {
	t.Parallel()
	var told atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Stripe-Client-Telemetry") != "" {
			told.Add(1)
		}
		w.Header().Set("Request-Id", "req_1") // what the next request would tell about
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(server.Close)
	api := stripeapi.New(server.URL, server.Client())
	for range 3 {
		_, err := send(t.Context(), api)
		require.NoError(t, err)
	}
	require.Zero(t, told.Load())
}

func TestGivenClientIsCopied(t *testing.T) {
	t.Parallel()
	given := &http.Client{Transport: http.DefaultTransport}
	before := *given
	stripeapi.New("", given).Close()
	require.Equal(t, before.Transport, given.Transport)
	require.Nil(t, given.CheckRedirect)
}
