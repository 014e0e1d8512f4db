package stripelicense_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/stretchr/testify/require"
)

// Whatever a signed delivery holds, nothing breaks, and only customers are forgotten.
func FuzzWebhook(f *testing.F) {
	f.Add(`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"object":"subscription","id":"sub_1","customer":{"id":"cus_1"},"metadata":{"license_key":"a"}}}}`)
	f.Add(`{"id":"evt_1","type":"customer.deleted","data":{"object":{"object":"customer","id":"cus_1","customer":null}}}`)
	f.Add(`{"id":"evt_1","type":"entitlements.active_entitlement_summary.updated","data":{"object":{"customer":"cus_1"}}}`)
	f.Add(`{"id":"evt_1","type":"customer.subscription.updated","livemode":true}`)
	checker := stripelicense.NewChecker(stripelicense.Config{Key: apiKey, KeyMetadata: "license_key"})
	f.Fuzz(func(t *testing.T, body string) {
		h := &hook{}
		h.Handler = checker.Webhook(stripelicense.WebhookConfig{Secrets: []string{secret}, Cache: &h.forgotten, Logger: slog.New(slog.DiscardHandler)})
		code := h.deliver(signed(body))
		require.Contains(t, []int{200, 400, 413}, code)
		for _, what := range h.take() {
			require.Equal(t, 200, code)
			require.True(t, strings.HasPrefix(what, "key ") || strings.HasPrefix(what, "subject cus_"), what)
		}
	})
}

// Whatever answers instead of Stripe: only what says that it is such a subscription,
// and of this customer, allows anybody.
func FuzzAnswers(f *testing.F) {
	f.Add(200, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active"}]}`)
	f.Add(200, `{"object":"list","has_more":true,"data":[{"object":"subscription","id":"sub_1","customer":{"id":"cus_1"},"status":"canceled","cancel_at":1}]}`)
	f.Add(404, `{"error":{"type":"invalid_request_error","code":"resource_missing"}}`)
	f.Add(307, `<html>`)
	f.Add(200, `{"object":"list","data":[null]}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		client := &http.Client{Transport: canned{status, body}}
		c := stripelicense.NewChecker(stripelicense.Config{Key: apiKey, HTTPClient: client})
		v, err := c.Check(t.Context(), license.Query{Subject: customer})
		switch {
		case err != nil:
			require.Zero(t, v)
		case v.Status == license.Allowed:
			require.Equal(t, customer, v.Subject)
			require.Equal(t, 2, status/100)
			require.Contains(t, body, "sub_")
		default:
			require.Equal(t, license.Denied, v.Status)
			require.NotEmpty(t, v.Reason)
		}
	})
}

type canned struct {
	status int
	body   string
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewBufferString(c.body)), Request: r}, nil
}
