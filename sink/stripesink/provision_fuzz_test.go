package stripesink_test

import (
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever calls itself Stripe may answer anything to reads; nothing may panic, and
// nothing but a fault or a finding may come of it.
func FuzzProvisionAnswers(f *testing.F) {
	f.Add(`{"object":"product","id":"p","name":"P","active":true}`, `{"object":"list","data":[]}`)
	f.Add(`{"object":"product","deleted":true}`, `{"object":"list","data":[null,{"id":"x"}],"has_more":true}`)
	f.Add(`{"object":"customer","currency":"usd"}`, `{"object":"list","data":[{"id":"sub_1","status":"active","items":{"data":[null,{"price":null},{"price":{"id":"p"}}]}}]}`)
	f.Add(`{"object":"price","active":true,"currency":"usd","recurring":{"meter":"m"}}`,
		`{"object":"list","data":[{"object":"price","lookup_key":"p-fine","recurring":null,"tiers":[null],"billing_scheme":"tiered"}]}`)
	f.Add(`{"error":{"type":"invalid_request_error","code":"resource_missing"}}`, `[]`)
	f.Fuzz(func(t *testing.T, object, list string) {
		client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			body := object
			if r.Method == http.MethodGet && r.URL.RawQuery != "" {
				body = list
			}
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})}
		c := provisionConfig(func(c *stripesink.ProvisionConfig) { c.HTTPClient = client })
		c.Tariffs["tiered"] = stripesink.Tariff{Meter: stripesink.Meter{EventName: event}, Tiers: []stripesink.Tier{{}}}
		_, err := stripesink.Provision(t.Context(), c)
		_, err2 := stripesink.Subscribe(t.Context(), stripesink.SubscribeConfig{
			Key: testKey, Customer: customer, Prices: []string{"p"}, BaseURL: c.BaseURL, HTTPClient: client,
		})
		for _, err := range []error{err, err2} {
			if err != nil {
				require.NotContains(t, err.Error(), canary)
			}
		}
	})
}

// An amount that is taken arrives to the last decimal.
func FuzzAmounts(f *testing.F) {
	for _, text := range []string{"0", "25", "0.5", "000.100", "123.456789012345", "999999999999999", "0.000000000001", "1e3", "-1", ".5", "٣"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := newShop(t)
		c := provisionConfig(func(c *stripesink.ProvisionConfig) { c.BaseURL, c.HTTPClient = stripetest.URL, s.client })
		c.Tariffs["fine"] = stripesink.Tariff{UnitAmount: text}
		if _, err := stripesink.Provision(t.Context(), c); err != nil {
			require.Zero(t, s.Requests())
			return
		}
		want, ok := new(big.Rat).SetString(text)
		require.True(t, ok)
		got, ok := new(big.Rat).SetString(s.list("/v1/prices")[0]["unit_amount_decimal"].(string))
		require.True(t, ok)
		require.Zero(t, want.Cmp(got), "%s became %s", text, got)
		again, err := stripesink.Provision(t.Context(), c)
		require.NoError(t, err)
		require.Empty(t, again.Created)
	})
}
