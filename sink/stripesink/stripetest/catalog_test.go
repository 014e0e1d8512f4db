package stripetest_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestCustomers(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	made := c.create("/v1/customers", "metadata[team]", "a", "name", "Ada")
	id := made["id"].(string)
	require.Equal(t, made, c.get("/v1/customers/"+id))
	require.Equal(t, object{"team": "a"}, made["metadata"])
	require.Nil(t, made["currency"])
	c.refused("GET", "/v1/customers/cus_nobody", 404, "No such customer: 'cus_nobody'")
	c.refused("POST", "/v1/customers", 400, "Received unknown parameter: color", "color", "red")

	status, gone := c.do("DELETE", "/v1/customers/"+id)
	require.Equal(t, 200, status)
	require.Equal(t, object{"id": id, "object": "customer", "deleted": true}, gone)
	require.Equal(t, gone, c.get("/v1/customers/"+id))
	c.refused("DELETE", "/v1/customers/"+id, 404, "No such customer")
}

func TestAnyCustomer(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.refused("GET", "/v1/customers/cus_9", 404, "No such customer")
	c.AnyCustomer = true
	require.Equal(t, "cus_9", c.get("/v1/customers/cus_9")["id"])
	c.refused("GET", "/v1/customers/acme", 404, "No such customer")
}

func TestDeletedCustomerIsBilledNoMore(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	price := c.AddPrice(stripetest.Price{})
	sub := c.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: price.ID}}})
	c.ChangeCustomer("cus_1", func(cus *stripetest.Customer) { cus.Deleted = true })
	require.Equal(t, "canceled", c.get("/v1/subscriptions/" + sub.ID)["status"])
	c.post("", "a")
	c.want(0)
	require.Equal(t, "meter_event_customer_not_found", c.Events()[0].Problem)
}

func TestProducts(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	made := c.create("/v1/products", "id", "tax-report", "name", "Tax report", "metadata[skm_product_id]", "3")
	require.Equal(t, "tax-report", made["id"])
	require.Equal(t, object{"skm_product_id": "3"}, made["metadata"])
	require.Equal(t, made, c.get("/v1/products/tax-report"))
	status, again := c.do("POST", "/v1/products", "id", "tax-report", "name", "Other")
	require.Equal(t, 400, status)
	require.Equal(t, "resource_already_exists", again["error"].(object)["code"])
	c.refused("POST", "/v1/products", 400, "Missing required param: name.")
	c.refused("GET", "/v1/products/other", 404, "No such product")
	c.ChangeProduct("tax-report", func(p *stripetest.Product) { p.Archived = true })
	require.Equal(t, false, c.get("/v1/products/tax-report")["active"])
}

func TestPricePerUnit(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	product := c.AddProduct(stripetest.Product{}).ID
	made := c.create("/v1/prices", "product", product, "currency", "EUR", "unit_amount_decimal", "00.50", "lookup_key", "calls",
		"recurring[interval]", "month", "recurring[usage_type]", "metered", "recurring[aggregate_usage]", "max", "metadata[skm]", "{}")
	require.Equal(t, "eur", made["currency"])
	require.Nil(t, made["unit_amount"])
	require.Equal(t, "0.5", made["unit_amount_decimal"])
	require.Equal(t, object{"skm": "{}"}, made["metadata"])
	require.Equal(t, "max", made["recurring"].(object)["aggregate_usage"])
	require.Equal(t, made, c.get("/v1/prices/"+made["id"].(string)))
	whole := c.create("/v1/prices", "product", product, "currency", "usd", "unit_amount", "7", "recurring[interval]", "year")
	require.Equal(t, 7.0, whole["unit_amount"])
	require.Equal(t, "7", whole["unit_amount_decimal"])
	require.Equal(t, "licensed", whole["recurring"].(object)["usage_type"])
}

func TestTiersMustBeExpanded(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	product := c.AddProduct(stripetest.Product{}).ID
	form := []string{"product", product, "currency", "usd", "billing_scheme", "tiered", "tiers_mode", "volume",
		"recurring[interval]", "month", "recurring[usage_type]", "metered", "lookup_key", "tiered",
		"tiers[0][up_to]", "10", "tiers[0][flat_amount]", "900", "tiers[0][unit_amount]", "0",
		"tiers[1][up_to]", "inf", "tiers[1][unit_amount_decimal]", "1.25"}
	made := c.create("/v1/prices", form...)
	require.NotContains(t, made, "tiers")
	require.Equal(t, "tiered", made["billing_scheme"])
	require.Nil(t, made["unit_amount"])
	tiers := []any{
		object{"up_to": 10.0, "flat_amount": 900.0, "flat_amount_decimal": "900", "unit_amount": 0.0, "unit_amount_decimal": "0"},
		object{"up_to": nil, "flat_amount": nil, "flat_amount_decimal": nil, "unit_amount": nil, "unit_amount_decimal": "1.25"},
	}
	id := made["id"].(string)
	require.Equal(t, tiers, c.get("/v1/prices/"+id, "expand[]", "tiers")["tiers"])
	listed := c.get("/v1/prices", "lookup_keys[]", "tiered", "expand[0]", "data.tiers")["data"].([]any)
	require.Equal(t, tiers, listed[0].(object)["tiers"])
}

func TestPriceRefusals(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	product := c.AddProduct(stripetest.Product{}).ID
	taken := c.AddPrice(stripetest.Price{LookupKey: "taken", Archived: true})
	c.AddMeter(stripetest.Meter{ID: "mtr_off", EventName: "off", Status: "inactive"})
	good := map[string]string{
		"product": product, "currency": "usd", "unit_amount": "1",
		"recurring[interval]": "month", "recurring[usage_type]": "metered",
	}
	tests := map[string]map[string]string{ // by what they say: changes to good
		"Missing required param: currency.":                 {"currency": ""},
		"Missing required param: product.":                  {"product": ""},
		"Missing required param: recurring[interval].":      {"recurring[interval]": ""},
		"Invalid recurring[interval]: must be one of month": {"recurring[interval]": "hour"},
		"Invalid recurring[usage_type]":                     {"recurring[usage_type]": "counted"},
		"Invalid recurring[aggregate_usage]":                {"recurring[aggregate_usage]": "avg"},
		"at most three years":                               {"recurring[interval_count]": "37"},
		"Invalid decimal: 1e9":                              {"unit_amount": "", "unit_amount_decimal": "1e9"},
		"between 0 and 999999999999":                        {"unit_amount": "-1"},
		"between 0 and 99999999999":                         {"unit_amount": "1000000000000"},
		"Invalid integer: 1.5":                              {"unit_amount": "1.5"},
		"Invalid decimal: x":                                {"unit_amount": "", "unit_amount_decimal": "x"},
		"You may only specify one":                          {"unit_amount_decimal": "1"},
		"A price per unit has":                              {"unit_amount": ""},
		"A tiered price has":                                {"billing_scheme": "tiered"},
		"aggregate_usage and meter are for":                 {"recurring[usage_type]": "licensed", "recurring[aggregate_usage]": "sum"},
		"aggregate_usage can't be set":                      {"recurring[aggregate_usage]": "sum", "recurring[meter]": "mtr_1"},
		"No such product: 'prod_no'":                        {"product": "prod_no"},
		"No such meter: 'mtr_no'":                           {"recurring[meter]": "mtr_no"},
		"The meter mtr_off is not active":                   {"recurring[meter]": "mtr_off"},
		"A price (`" + taken.ID + "`) already uses that":    {"lookup_key": "taken"},
		"the last one must be up_to inf": {
			"unit_amount": "", "billing_scheme": "tiered", "tiers_mode": "graduated", "tiers[0][up_to]": "5", "tiers[0][unit_amount]": "1",
		},
		"A tier has": {
			"unit_amount": "", "billing_scheme": "tiered", "tiers_mode": "graduated", "tiers[0][up_to]": "inf",
		},
		"up_to must be above 0": {
			"unit_amount": "", "billing_scheme": "tiered", "tiers_mode": "graduated", "tiers[0][up_to]": "0", "tiers[0][unit_amount]": "1",
		},
	}
	for words, change := range tests {
		var pairs []string
		for name, value := range good {
			if _, changed := change[name]; !changed {
				pairs = append(pairs, name, value)
			}
		}
		for name, value := range change {
			if value != "" {
				pairs = append(pairs, name, value)
			}
		}
		status, o := c.do("POST", "/v1/prices", pairs...)
		require.GreaterOrEqual(t, status, 400, words)
		require.Contains(t, o["error"].(object)["message"], words)
	}
	require.Len(t, ids(c.get("/v1/prices")), 1, "none was made")
}

func TestListPrices(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	a := c.AddPrice(stripetest.Price{LookupKey: "a"})
	b := c.AddPrice(stripetest.Price{LookupKey: "b", Product: a.Product, Archived: true})
	m := c.AddPrice(stripetest.Price{Meter: "mtr_1", Currency: "eur"})
	l := c.AddPrice(stripetest.Price{UsageType: "licensed"})
	for _, test := range []struct {
		filter []string
		want   []string
	}{
		{nil, []string{l.ID, m.ID, b.ID, a.ID}}, // newest first
		{[]string{"lookup_keys[0]", "a", "lookup_keys[1]", "b"}, []string{b.ID, a.ID}},
		{[]string{"lookup_keys[]", "c"}, nil},
		{[]string{"active", "true"}, []string{l.ID, m.ID, a.ID}},
		{[]string{"product", a.Product}, []string{b.ID, a.ID}},
		{[]string{"currency", "eur"}, []string{m.ID}},
		{[]string{"recurring[meter]", "mtr_1"}, []string{m.ID}},
		{[]string{"recurring[usage_type]", "licensed"}, []string{l.ID}},
		{[]string{"limit", "1", "starting_after", m.ID}, []string{b.ID}},
	} {
		require.Equal(t, test.want, ids(c.get("/v1/prices", test.filter...)), "%v", test.filter)
	}
	require.Equal(t, true, c.get("/v1/prices", "limit", "3")["has_more"])
	require.Equal(t, false, c.get("/v1/prices", "limit", "4")["has_more"])
	c.refused("GET", "/v1/prices", 400, "between 1 and 100", "limit", "101")
	c.refused("GET", "/v1/prices", 404, "No such object", "starting_after", "price_no")
	c.ChangePrice(a.ID, func(p *stripetest.Price) { p.Archived = true })
	require.Equal(t, []string{l.ID, m.ID}, ids(c.get("/v1/prices", "active", "true")))
}

// A client that lost the reply gets the first one again, and nothing is made twice.
func TestCreatingIsIdempotent(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	key := http.Header{"Idempotency-Key": {"once"}}
	c.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true})
	form := url.Values{"id": {"p"}, "name": {"P"}}
	status, _, _ := c.send("POST", "/v1/products", form, key)
	require.Zero(t, status)
	status, _, header := c.send("POST", "/v1/products", form, key)
	require.Equal(t, 200, status)
	require.Equal(t, "true", header.Get("Idempotent-Replayed"))
	status, _, _ = c.send("POST", "/v1/prices", form, key)
	require.Equal(t, 400, status)
}
