package mocktest

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// empty passes everything to stripe-mock and notes what it says; then it answers reads
// itself, as an account in which nothing is for sale yet, for the mock has one of
// everything.
type empty struct {
	http.RoundTripper
	t     *testing.T
	wrote []string
}

func (e *empty) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := e.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if r.Method != http.MethodGet {
		if resp.StatusCode == http.StatusOK {
			e.wrote = append(e.wrote, r.URL.Path)
		}
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	require.Equal(e.t, http.StatusOK, resp.StatusCode, "%s: %s", r.URL, body)
	answer := `{"object":"list","data":[]}`
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1/products/"):
		resp.StatusCode = http.StatusNotFound
		answer = `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such product"}}`
	case strings.HasPrefix(r.URL.Path, "/v1/prices/"):
		answer = `{"object":"price","active":true,"currency":"usd","recurring":{}}`
	case strings.HasPrefix(r.URL.Path, "/v1/customers/"):
		answer = string(body)
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(answer)), int64(len(answer))
	return resp, nil
}

func provision(t *testing.T, transport http.RoundTripper) error {
	const key, address = "sk_test_123", "http://localhost"
	client := &http.Client{Transport: transport}
	_, err := stripesink.Provision(t.Context(), stripesink.ProvisionConfig{
		Key:      key,
		Product:  stripesink.Product{ID: "tax-suite", Name: "Tax Suite", CryptolensID: 3349},
		Currency: "usd",
		Tariffs: map[string]stripesink.Tariff{
			"1 legacy": {UnitAmount: "12.5", Aggregate: stripesink.AggregateLastEver, Interval: "year", License: `{"F3":true}`},
			"2 tiers": {
				Meter: stripesink.Meter{EventName: "tax_report"}, Volume: true,
				Tiers: []stripesink.Tier{{UpTo: 100, UnitAmount: "0.125", FlatAmount: "500"}, {FlatAmount: "0.5"}},
			},
			"3 hours": {Meter: stripesink.Meter{EventName: "seats"}, TimeWindow: stripesink.HourWindow, UnitAmount: "20"},
		},
		BaseURL:    address,
		HTTPClient: client,
	})
	if err != nil {
		return err
	}
	_, err = stripesink.Subscribe(t.Context(), stripesink.SubscribeConfig{
		Key: key, Customer: "cus_123", Prices: []string{"price_1", "price_2"}, LicenseKeyID: "4711", BaseURL: address, HTTPClient: client,
	})
	return err
}

func TestStripeMockProvisions(t *testing.T) {
	t.Parallel()
	mock := startMock(t)

	t.Run("takes all that is made", func(t *testing.T) {
		t.Parallel()
		e := &empty{RoundTripper: mock, t: t}
		require.NoError(t, provision(t, e))
		require.Equal(t, []string{
			"/v1/products", "/v1/prices", "/v1/billing/meters", "/v1/prices", "/v1/billing/meters", "/v1/prices", "/v1/subscriptions",
		}, e.wrote)
	})
	// What is refused proves that the mock looks at what it takes.
	for says, change := range map[string]func(url.Values){
		"'name' is required":        func(f url.Values) { f.Del("name") },
		"additional properties are": func(f url.Values) { f.Set("color", "red") },
		"'currency' is required":    func(f url.Values) { f.Del("currency") },
		"'up_to' is required": func(f url.Values) {
			f.Del("tiers[0][up_to]")
		},
		"'interval' is required":     func(f url.Values) { f.Del("recurring[interval]") },
		"'display_name' is required": func(f url.Values) { f.Del("display_name") },
		"'formula' is required": func(f url.Values) {
			if f.Has("default_aggregation[formula]") {
				f.Del("default_aggregation[formula]")
				f.Set("default_aggregation[color]", "red")
			}
		},
		"'customer' is required": func(f url.Values) { f.Del("customer") },
	} {
		t.Run("refuses, "+says, func(t *testing.T) {
			t.Parallel()
			tp := &tamper{mock, change, nil}
			require.ErrorContains(t, provision(t, &empty{RoundTripper: tp, t: t}), says)
		})
	}
}
