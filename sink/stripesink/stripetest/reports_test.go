package stripetest_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76/webhook"
)

const secret = "whsec_1"

// report reads an event of API v2.
func (c *caller) report(id string) object {
	c.t.Helper()
	status, o := c.v2("/v2/core/events/"+id, "2024-09-30.acacia")
	require.Equal(c.t, 200, status, "%v", o)
	return o
}

func (c *caller) v2(path, version string) (int, object) {
	c.t.Helper()
	status, body, _ := c.send("GET", path, url.Values{}, http.Header{"Stripe-Version": {version}})
	return status, decode(c.t, body)
}

func TestErrorReports(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	require.Empty(t, c.Webhook(secret))
	c.clock.Set(start.Add(12 * time.Second))
	c.post("", "a", "payload[stripe_customer_id]", "cus_2")
	c.post("", "b", "payload[stripe_customer_id]", "cus_3")
	c.post("", "c", "payload[value]", "much")
	c.post("", "d", "event_name", "none")
	c.post("", "fine")
	c.clock.Set(start.Add(21 * time.Second))
	c.post("", "e", "payload[value]", "much")

	deliveries := c.Webhook(secret)
	require.Len(t, deliveries, 3)
	require.Equal(t, "v1.billing.meter.no_meter_found", deliveries[0].Type)
	require.Equal(t, "v1.billing.meter.error_report_triggered", deliveries[1].Type)
	require.Equal(t, "v1.billing.meter.error_report_triggered", deliveries[2].Type)
	thin := decode(t, string(deliveries[1].Body))
	require.NotContains(t, thin, "data")
	require.Equal(t, "v2.core.event", thin["object"])
	require.Equal(t, "2026-03-01T00:00:21.000Z", thin["created"])
	require.Equal(t, object{"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}, thin["related_object"])

	full := c.report(deliveries[1].EventID)
	data := full["data"].(object)
	delete(full, "data")
	require.Equal(t, thin, full)
	sample := func(identifier, message string) []any {
		return []any{object{"error_message": message, "request": object{"identifier": identifier}}}
	}
	require.Equal(t, object{
		"developer_message_summary": "There are 3 invalid events",
		"validation_start":          "2026-03-01T00:00:10.000Z",
		"validation_end":            "2026-03-01T00:00:20.000Z",
		"reason": object{"error_count": 3.0, "error_types": []any{
			object{"code": "meter_event_customer_not_found", "error_count": 2.0, "sample_errors": sample("a", "Customer cus_2 not found.")},
			object{"code": "meter_event_invalid_value", "error_count": 1.0, "sample_errors": sample("c", "Invalid value much.")},
		}},
	}, data)
	none := c.report(deliveries[0].EventID)
	require.Nil(t, none["related_object"])
	require.Equal(t, "There is 1 invalid event", none["data"].(object)["developer_message_summary"])

	// What was reported stays as it is, and what comes later is another event.
	c.post("", "f", "payload[value]", "much")
	require.Len(t, c.Webhook(secret), 4)
	require.Equal(t, deliveries, c.Webhook(secret)[:3])
}

func TestMoreSamples(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Samples = 2
	for _, identifier := range []string{"a", "b", "c"} {
		c.post("", identifier, "event_name", "none")
	}
	o := c.report(c.Webhook(secret)[0].EventID)
	kind := o["data"].(object)["reason"].(object)["error_types"].([]any)[0].(object)
	require.Equal(t, 3.0, kind["error_count"])
	require.Len(t, kind["sample_errors"], 2)
}

func TestReportsNeedVersion2(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.post("", "a", "event_name", "none")
	id := c.Webhook(secret)[0].EventID
	for version, want := range map[string]int{"": 400, "2023-10-16": 400, "2024-09-30.acacia": 200, "2025-03-31.basil": 200} {
		status, _ := c.v2("/v2/core/events/"+id, version)
		require.Equal(t, want, status, version)
	}
	status, o := c.v2("/v2/core/events/evt_no", "2024-09-30.acacia")
	require.Equal(t, 404, status, "%v", o)
}

// Stripe's own package takes the signature.
func TestSignature(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.clock.Set(time.Now())
	c.post("", "a", "event_name", "none")
	d := c.Webhook(secret)[0]
	require.NoError(t, webhook.ValidatePayload(d.Body, d.Signature, secret))
	require.ErrorIs(t, webhook.ValidatePayload(d.Body, d.Signature, "whsec_2"), webhook.ErrNoValidSignature)
	require.ErrorIs(t, webhook.ValidatePayload(append(d.Body, ' '), d.Signature, secret), webhook.ErrNoValidSignature)
	old := stripetest.Sign(secret, time.Now().Add(-6*time.Minute), d.Body)
	require.ErrorIs(t, webhook.ValidatePayload(d.Body, old, secret), webhook.ErrTooOld)

	r := d.Request("https://example.com/stripe")
	require.Equal(t, "POST https://example.com/stripe", r.Method+" "+r.URL.String())
	require.Equal(t, d.Signature, r.Header.Get("Stripe-Signature"))
	http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) { require.EqualValues(t, len(d.Body), got.ContentLength) }).
		ServeHTTP(httptest.NewRecorder(), r)
	require.Panics(t, func() { d.Request("::") })
}
