package stripetest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func decode(t *testing.T, body string) (o object) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), &o), body)
	return o
}

// Whatever a request holds, the answer is Stripe's, and nothing breaks.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/v1/subscriptions/search", `query=metadata['k']:'v'+AND+status:"active"&limit=1`},
		{"GET", "/v1/subscriptions/search", `query=metadata['k\'']:'\\'+AND+`},
		{"GET", "/v1/prices", "lookup_keys[0]=a&expand[]=data.tiers&starting_after=price_1"},
		{"GET", "/v1/subscriptions/sub_1", "expand[]=customer&expand[]=items.data.price.product"},
		{"GET", "/v1/billing/meters/mtr_1/event_summaries", "customer=cus_1&start_time=0&end_time=3600&value_grouping_window=hour"},
		{"POST", "/v1/prices", "product=prod_1&currency=usd&recurring[interval]=month&tiers[0][up_to]=inf&tiers[0][unit_amount_decimal]=1e9&tiers_mode=volume&billing_scheme=tiered"},
		{"POST", "/v1/prices", "product=prod_1&currency=usd&recurring[interval]=month&unit_amount=%2b5"},
		{"POST", "/v1/subscriptions", "customer=cus_1&items[0][price]=price_1&expand[]=customer"},
		{"POST", "/v1/subscription_items/si_1/usage_records", "quantity=1&timestamp=now&action=set"},
		{"POST", "/v1/billing/meters", "event_name=x&display_name=x&default_aggregation[formula]=sum"},
		{"POST", "/v1/billing/meter_events", "event_name=calls&payload[stripe_customer_id]=cus_1&payload[value]=5&timestamp=1772323200"},
		{"POST", "/v1/billing/meter_event_adjustments", "event_name=calls&type=cancel&cancel[identifier]=a"},
		{"DELETE", "/v1/customers/cus_1", ""},
		{"GET", "/v1/entitlements/active_entitlements", "customer=cus_1&limit=1"},
		{"GET", "/v1/entitlements/active_entitlements/ent_1", "expand[]=feature"},
		{"GET", "/v2/core/events/evt_1", "%"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, path, form string) {
		srv := stripetest.New(stripetest.Meter{ID: "mtr_1", EventName: "calls"})
		srv.Now = stripetest.NewClock(start).Now
		srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
		srv.AddProduct(stripetest.Product{ID: "prod_1"})
		srv.AddPrice(stripetest.Price{ID: "price_1", Product: "prod_1"})
		srv.AddSubscription(stripetest.Subscription{
			ID: "sub_1", Customer: "cus_1", Metadata: map[string]string{"k": "v"},
			Items: []stripetest.Item{{ID: "si_1", Price: "price_1"}},
		})
		r := &http.Request{
			Method: method, URL: &url.URL{Path: path}, Host: "localhost",
			Header: http.Header{"Authorization": {"Bearer sk_test_1"}},
			Body:   http.NoBody,
		}
		if method == http.MethodGet {
			r.URL.RawQuery = form
		} else {
			r = httptest.NewRequest(http.MethodPost, "http://localhost/", strings.NewReader(form))
			r.Method, r.URL, r.Header = method, &url.URL{Path: path}, http.Header{"Authorization": {"Bearer sk_test_1"}}
		}
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, r)
		if rec.Code/100 == 3 { // ServeMux cleans paths
			return
		}
		o := decode(t, rec.Body.String())
		if rec.Code != http.StatusOK {
			require.NotEmpty(t, o["error"].(object)["message"])
			require.Contains(t, []int{400, 404}, rec.Code)
		}
		require.Equal(t, 1, srv.Requests())
	})
}
