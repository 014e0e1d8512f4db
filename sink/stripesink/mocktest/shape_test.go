package mocktest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76"
)

// leftOut are keys that stripe-mock has and stripetest need not.
var leftOut = map[string]string{
	"plan":        "the older twin of price",
	"quantity":    "a metered item has none",
	"total_count": "only if it is expanded",
}

// shape is one endpoint of stripetest, asked as its users ask.
type shape struct {
	method, path string // with IDs that stripetest has; stripe-mock takes any
	form         []string
	as           any // what the SDK decodes the answer into
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func shapes() []shape {
	seconds := func(at time.Time) string { return fmt.Sprint(at.Unix()) }
	return []shape{
		{"POST", "/v1/customers", []string{"metadata[a]", "b"}, stripe.Customer{}},
		{"GET", "/v1/customers/cus_1", nil, stripe.Customer{}},
		{"POST", "/v1/products", []string{"id", "p", "name", "P", "metadata[skm_product_id]", "1"}, stripe.Product{}},
		{"GET", "/v1/products/prod_1", nil, stripe.Product{}},
		{"POST", "/v1/prices", []string{
			"product", "prod_1", "currency", "eur", "unit_amount_decimal", "0.5", "lookup_key", "k", "metadata[skm]", "{}",
			"recurring[interval]", "month", "recurring[usage_type]", "metered", "recurring[aggregate_usage]", "last_ever",
		}, stripe.Price{}},
		{"POST", "/v1/prices", []string{
			"product", "prod_1", "currency", "eur", "billing_scheme", "tiered", "tiers_mode", "graduated",
			"recurring[interval]", "month", "recurring[usage_type]", "metered", "recurring[meter]", "mtr_1",
			"tiers[0][up_to]", "10", "tiers[0][flat_amount]", "100", "tiers[1][up_to]", "inf", "tiers[1][unit_amount]", "2",
			"expand[0]", "tiers",
		}, stripe.Price{}},
		{"GET", "/v1/prices/price_1", []string{"expand[0]", "tiers"}, stripe.Price{}},
		{"GET", "/v1/prices", []string{"lookup_keys[0]", "one", "active", "true"}, stripe.PriceList{}},
		{"POST", "/v1/subscriptions", []string{
			"customer", "cus_1", "items[0][price]", "price_1", "items[0][billing_thresholds][usage_gte]", "5", "metadata[skm_key_id]", "1",
		}, stripe.Subscription{}},
		{"GET", "/v1/subscriptions/sub_1", nil, stripe.Subscription{}},
		{"GET", "/v1/subscriptions", []string{"customer", "cus_1", "status", "all"}, stripe.SubscriptionList{}},
		{"GET", "/v1/subscriptions/search", []string{"query", "metadata['k']:'v'"}, stripe.SubscriptionSearchResult{}},
		{"GET", "/v1/subscription_items/si_1", nil, stripe.SubscriptionItem{}},
		{"GET", "/v1/entitlements/active_entitlements", []string{"customer", "cus_1", "limit", "100"}, stripe.EntitlementsActiveEntitlementList{}},
		{"GET", "/v1/entitlements/active_entitlements/ent_1", nil, stripe.EntitlementsActiveEntitlement{}},
		{"GET", "/v1/subscription_items", []string{"subscription", "sub_1"}, stripe.SubscriptionItemList{}},
		{"POST", "/v1/subscription_items/si_1/usage_records", []string{"quantity", "1", "action", "set", "timestamp", seconds(noon)}, stripe.UsageRecord{}},
		{"GET", "/v1/subscription_items/si_1/usage_record_summaries", []string{"limit", "100"}, stripe.UsageRecordSummaryList{}},
		{"POST", "/v1/billing/meters", []string{
			"event_name", "x", "display_name", "X", "default_aggregation[formula]", "sum", "event_time_window", "day",
			"customer_mapping[type]", "by_id", "customer_mapping[event_payload_key]", "who", "value_settings[event_payload_key]", "n",
		}, stripe.BillingMeter{}},
		{"GET", "/v1/billing/meters/mtr_1", nil, stripe.BillingMeter{}},
		{"GET", "/v1/billing/meters", []string{"status", "active"}, stripe.BillingMeterList{}},
		{"POST", "/v1/billing/meter_events", []string{
			"event_name", "calls", "identifier", "b", "timestamp", seconds(noon),
			"payload[stripe_customer_id]", "cus_1", "payload[value]", "5",
		}, stripe.BillingMeterEvent{}},
		{"GET", "/v1/billing/meters/mtr_1/event_summaries", []string{
			"customer", "cus_1", "start_time", seconds(noon), "end_time", seconds(noon.Add(time.Minute)),
		}, stripe.BillingMeterEventSummaryList{}},
		{"POST", "/v1/billing/meter_event_adjustments", []string{
			"event_name", "calls", "type", "cancel", "cancel[identifier]", "a",
		}, stripe.BillingMeterEventAdjustment{}},
		{"POST", "/v1/billing/meters/mtr_1/deactivate", nil, stripe.BillingMeter{}},
		{"POST", "/v1/billing/meters/mtr_1/reactivate", nil, stripe.BillingMeter{}},
		{"DELETE", "/v1/subscriptions/sub_1", nil, stripe.Subscription{}},
		{"DELETE", "/v1/customers/cus_1", nil, stripe.Customer{}},
	}
}

// account returns a Stripe that has what the shapes ask for.
func account(t *testing.T) *http.Client {
	srv := stripetest.New(stripetest.Meter{ID: "mtr_1", EventName: "calls"})
	clock := stripetest.NewClock(noon.Add(-time.Hour))
	srv.Now = clock.Now
	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
	srv.AddProduct(stripetest.Product{ID: "prod_1"})
	srv.AddPrice(stripetest.Price{
		ID: "price_1", Product: "prod_1", Currency: "eur", LookupKey: "one", Tiers: []stripetest.Tier{{UnitAmount: "0.5"}},
	})
	srv.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", Metadata: map[string]string{"k": "v"},
		Items: []stripetest.Item{{ID: "si_1", Price: "price_1"}},
	})
	srv.AddEntitlement(stripetest.Entitlement{ID: "ent_1", Customer: "cus_1", LookupKey: "tax_reports"})
	clock.Advance(2 * time.Hour)
	client, stop := srv.Pipe()
	t.Cleanup(stop)
	_ = ask(t, client, shape{"POST", "/v1/billing/meter_events", []string{
		"event_name", "calls", "identifier", "a", "timestamp", fmt.Sprint(noon.Unix()),
		"payload[stripe_customer_id]", "cus_1", "payload[value]", "5",
	}, nil})
	return client
}

// TestShapes compares the answers of stripetest with those of Stripe's own mock: what
// the SDK reads of the one, it finds in the other, of the same kind.
func TestShapes(t *testing.T) {
	t.Parallel()
	mock, ours := &http.Client{Transport: startMock(t)}, account(t)
	for _, s := range shapes() {
		name := s.method + " " + s.path
		theirs, answer := ask(t, mock, s), ask(t, ours, s)
		for _, body := range [][]byte{theirs, answer} {
			require.NoError(t, json.Unmarshal(body, reflect.New(reflect.TypeOf(s.as)).Interface()), "%s: %s", name, body)
		}
		var want, got any
		require.NoError(t, json.Unmarshal(theirs, &want))
		require.NoError(t, json.Unmarshal(answer, &got))
		for _, difference := range compare(want, got, reflect.TypeOf(s.as), "") {
			t.Errorf("%s: %s", name, difference)
		}
	}
}

func ask(t *testing.T, client *http.Client, s shape) []byte {
	form := url.Values{}
	for i := 0; i < len(s.form); i += 2 {
		form.Add(s.form[i], s.form[i+1])
	}
	target, body := "http://localhost"+s.path, io.Reader(nil)
	if s.method == http.MethodGet {
		target += "?" + form.Encode()
	} else {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(t.Context(), s.method, target, body)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer sk_test_123")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, 200, answer.StatusCode, "%s %s: %s", s.method, s.path, data)
	return data
}

// compare says where got lacks what want has and the SDK's type reads, or has it of
// another kind, or has what neither knows.
func compare(want, got any, as reflect.Type, path string) (differences []string) {
	if want == nil || got == nil {
		return nil // either may be null
	}
	for as != nil && as.Kind() == reflect.Pointer {
		as = as.Elem()
	}
	if w, g := reflect.TypeOf(want).Kind(), reflect.TypeOf(got).Kind(); w != g {
		return []string{fmt.Sprintf("%s is a %v, not a %v", path, g, w)}
	}
	switch want := want.(type) {
	case []any:
		if got := got.([]any); len(want) > 0 && len(got) > 0 && as != nil {
			return compare(want[0], got[0], as.Elem(), path+"[0]")
		}
	case map[string]any:
		got := got.(map[string]any)
		if as == nil || as.Kind() != reflect.Struct {
			return nil // metadata, a payload
		}
		reads := fields(as)
		for key := range want {
			if _, has := got[key]; !has && reads[key] != nil && leftOut[key] == "" {
				differences = append(differences, path+"."+key+" is missing")
			}
		}
		for key, value := range got {
			_, known := want[key]
			if !known && reads[key] == nil {
				differences = append(differences, path+"."+key+" is unknown to both")
			}
			differences = append(differences, compare(want[key], value, reads[key], path+"."+key)...)
		}
	}
	return differences
}

// fields are those that JSON fills in a struct, by key.
func fields(of reflect.Type) map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for f := range of.Fields() {
		switch key, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case f.Anonymous && key == "" && f.Type.Kind() == reflect.Struct:
			for key, t := range fields(f.Type) {
				all[key] = t
			}
		case key != "" && key != "-":
			all[key] = f.Type
		}
	}
	return all
}

// The comparison can fail.
func TestCompare(t *testing.T) {
	t.Parallel()
	as := reflect.TypeFor[stripe.UsageRecordSummaryList]()
	decode := func(text string) (v any) { require.NoError(t, json.Unmarshal([]byte(text), &v)); return v }
	want := decode(`{"object": "list", "has_more": false, "url": "/", "data": [{"id": "sis_1", "period": {"start": 1, "end": 2}, "odd": 1}]}`)
	for got, says := range map[string]string{
		`{"object": "list", "has_more": false, "url": "/x", "data": [{"id": "x", "period": {"start": null, "end": 3}}]}`: "",
		`{"object": "list", "has_more": false, "url": "/", "data": []}`:                                                  "",
		`{"object": "list", "url": "/", "data": [{"id": "x", "period": {"start": 1, "end": 3}}]}`:                        ".has_more is missing",
		`{"object": "list", "has_more": "no", "url": "/", "data": []}`:                                                   ".has_more is a string, not a bool",
		`{"object": "list", "has_more": false, "url": "/", "data": [{"id": "x", "period": {"start": 1}}]}`:               ".data[0].period.end is missing",
		`{"object": "list", "has_more": false, "url": "/", "data": {}}`:                                                  ".data is a map, not a slice",
		`{"object": "list", "has_more": false, "url": "/", "data": [], "count": 1}`:                                      ".count is unknown to both",
	} {
		require.Equal(t, says, strings.Join(compare(want, decode(got), as, ""), ", "))
	}
}
