package stripetest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestRate(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Rate = 2
	c.post("", "a")
	c.post("", "b")
	status, body, header := c.post("k", "c")
	require.Equal(t, 429, status)
	require.Contains(t, body, `"rate_limit"`)
	require.Equal(t, "global-rate", header.Get("Stripe-Rate-Limited-Reason"))
	require.Equal(t, 1, c.Throttled())
	c.want(10)
	c.clock.Advance(time.Second)
	status, _, header = c.post("k", "c")
	require.Equal(t, 200, status)
	require.Empty(t, header.Get("Idempotent-Replayed"))
	require.Equal(t, 4, c.Requests())
	require.Equal(t, 4, c.RequestsTo("POST /v1/billing/meter_events"))
	require.Zero(t, c.RequestsTo("GET /v1/prices"))
}

func TestForbid(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Forbid("POST /v1/billing/meter_events", "GET /v1/customers/{id}")
	status, body, _ := c.post("k", "a")
	require.Equal(t, 403, status)
	require.Contains(t, body, "does not have the required permissions")
	c.refused("GET", "/v1/customers/cus_1", 403, "permissions")
	c.get("/v1/billing/meters")
	c.want(0)
}

func TestUnknownURL(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.refused("GET", "/v1/invoices", 404, "Unrecognized request URL (GET: /v1/invoices).")
	c.refused("DELETE", "/v1/prices", 404, "Unrecognized request URL (DELETE: /v1/prices).")
	require.Equal(t, 2, c.Requests())
}

func TestDateIsTheServers(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	_, _, header := c.post("", "a")
	require.Equal(t, start.Format(http.TimeFormat), header.Get("Date"))
	id := header.Get("Request-Id")
	_, _, header = c.post("", "b")
	require.NotEqual(t, id, header.Get("Request-Id"))
}

func TestLongKey(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	status, _, _ := c.post(strings.Repeat("k", 255), "a")
	require.Equal(t, 200, status)
	status, _, _ = c.post(strings.Repeat("k", 256), "b")
	require.Equal(t, 400, status)
	c.want(5)
}

func TestLive(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	require.Equal(t, false, c.get("/v1/customers/cus_1")["livemode"])
	c.Live = true
	require.Equal(t, true, c.get("/v1/customers/cus_1")["livemode"])
}

// A fault may wait for its endpoint while others pass.
func TestFaultOnAnEndpoint(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Script(
		stripetest.Fault{Answer: stripetest.Throttled, On: "meter_events"},
		stripetest.Fault{Answer: stripetest.Locked, On: "POST"},
		stripetest.Fault{On: "GET"},
		stripetest.Fault{Answer: stripetest.Error500, On: "GET /v1/customers"},
	)
	c.get("/v1/customers/cus_1")
	require.Zero(t, c.Fired())
	c.refused("GET", "/v1/customers/cus_1", 500, "An unknown error occurred")
	status, _, header := c.post("k", "a")
	require.Equal(t, 429, status)
	require.NotEmpty(t, header.Get("Stripe-Rate-Limited-Reason"))
	status, body, header := c.post("k", "a")
	require.Equal(t, 429, status)
	require.Contains(t, body, "lock_timeout")
	require.Empty(t, header.Get("Stripe-Rate-Limited-Reason"))
	status, _, _ = c.post("k", "a")
	require.Equal(t, 200, status)
	require.Equal(t, 3, c.Fired())
	c.want(5)
}

// It is a handler as any other.
func TestOverTheNetwork(t *testing.T) {
	t.Parallel()
	srv := stripetest.New(stripetest.Meter{EventName: "calls"})
	server := httptest.NewServer(srv)
	t.Cleanup(server.Close)
	req, err := http.NewRequest(http.MethodGet, server.URL+"/v1/billing/meters", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer sk_test_1")
	resp, err := server.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	req.Header.Del("Authorization")
	resp, err = server.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 401, resp.StatusCode)
}
