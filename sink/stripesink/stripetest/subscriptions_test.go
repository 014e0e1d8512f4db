package stripetest_test

import (
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestCreateSubscription(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	price := c.AddPrice(stripetest.Price{Currency: "eur"})
	seats := c.AddPrice(stripetest.Price{Currency: "eur", UsageType: "licensed"})
	made := c.create("/v1/subscriptions", "customer", "cus_1", "items[0][price]", price.ID, "items[1][price]", seats.ID,
		"metadata[skm_key_id]", "7", "items[0][billing_thresholds][usage_gte]", "100")
	require.Equal(t, "active", made["status"])
	require.Equal(t, "eur", made["currency"])
	require.EqualValues(t, start.Unix(), made["current_period_start"])
	require.EqualValues(t, start.AddDate(0, 1, 0).Unix(), made["current_period_end"])
	require.Equal(t, object{"skm_key_id": "7"}, made["metadata"])
	require.Equal(t, "eur", c.get("/v1/customers/cus_1")["currency"])

	items := made["items"].(object)["data"].([]any)
	metered, licensed := items[0].(object), items[1].(object)
	require.Equal(t, price.ID, metered["price"].(object)["id"])
	require.Equal(t, object{"usage_gte": 100.0}, metered["billing_thresholds"])
	require.NotContains(t, metered, "quantity")
	require.Equal(t, 1.0, licensed["quantity"])
	require.Equal(t, metered, c.get("/v1/subscription_items/"+metered["id"].(string)))
	require.Equal(t, ids(made["items"].(object)), []string{metered["id"].(string), licensed["id"].(string)})
	require.Len(t, ids(c.get("/v1/subscription_items", "subscription", made["id"].(string))), 2)
	require.Equal(t, made, c.get("/v1/subscriptions/"+made["id"].(string)))
}

func TestSubscriptionRefusals(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	gone := c.AddCustomer(stripetest.Customer{Deleted: true})
	usd, eur := c.AddPrice(stripetest.Price{}), c.AddPrice(stripetest.Price{Currency: "eur"})
	yearly, old := c.AddPrice(stripetest.Price{Interval: "year"}), c.AddPrice(stripetest.Price{Archived: true})
	refuse := func(status int, words string, pairs ...string) {
		t.Helper()
		c.refused("POST", "/v1/subscriptions", status, words, pairs...)
	}
	refuse(400, "Missing required param: customer.", "items[0][price]", usd.ID)
	refuse(400, "Missing required param: items[0][price].", "customer", "cus_1")
	refuse(404, "No such customer: 'cus_no'", "customer", "cus_no", "items[0][price]", usd.ID)
	refuse(404, "No such customer", "customer", gone.ID, "items[0][price]", usd.ID)
	refuse(404, "No such price: 'price_no'", "customer", "cus_1", "items[0][price]", "price_no")
	refuse(404, "No such price: 'price_no'", "customer", "cus_1", "items[0][price]", usd.ID, "items[1][price]", "price_no")
	refuse(400, "The price specified is inactive", "customer", "cus_1", "items[0][price]", old.ID)
	refuse(400, "same plan", "customer", "cus_1", "items[0][price]", usd.ID, "items[1][price]", usd.ID)
	refuse(400, "same currency", "customer", "cus_1", "items[0][price]", usd.ID, "items[1][price]", eur.ID)
	refuse(400, "same currency", "customer", "cus_1", "items[0][price]", usd.ID, "currency", "eur")
	refuse(400, "same recurring interval", "customer", "cus_1", "items[0][price]", usd.ID, "items[1][price]", yearly.ID)
	refuse(400, "takes no quantity", "customer", "cus_1", "items[0][price]", usd.ID, "items[0][quantity]", "1")
	require.Empty(t, ids(c.get("/v1/subscriptions")))
}

// The currency of the first subscription stays the customer's, also when it is over.
func TestSecondCurrencyIsRefused(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	usd, eur := c.AddPrice(stripetest.Price{}), c.AddPrice(stripetest.Price{Currency: "eur"})
	first := c.create("/v1/subscriptions", "customer", "cus_1", "items[0][price]", usd.ID)
	status, canceled := c.do("DELETE", "/v1/subscriptions/"+first["id"].(string))
	require.Equal(t, 200, status)
	require.Equal(t, "canceled", canceled["status"])
	require.EqualValues(t, start.Unix(), canceled["ended_at"])
	c.refused("DELETE", "/v1/subscriptions/"+first["id"].(string), 404, "No such subscription")
	c.refused("POST", "/v1/subscriptions", 400, "You cannot combine currencies on a single customer.",
		"customer", "cus_1", "items[0][price]", eur.ID)
	c.create("/v1/subscriptions", "customer", "cus_1", "items[0][price]", usd.ID)
}

func TestListSubscriptions(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	other := c.AddCustomer(stripetest.Customer{}).ID
	p, q := c.AddPrice(stripetest.Price{}), c.AddPrice(stripetest.Price{})
	add := func(customer, price, status string) string {
		return c.AddSubscription(stripetest.Subscription{
			Customer: customer, Status: status, Items: []stripetest.Item{{Price: price}},
		}).ID
	}
	a, b, d := add("cus_1", p.ID, ""), add("cus_1", q.ID, "canceled"), add(other, p.ID, "past_due")
	for _, test := range []struct{ filter, want []string }{
		{nil, []string{d, a}},
		{[]string{"status", "all"}, []string{d, b, a}},
		{[]string{"status", "canceled"}, []string{b}},
		{[]string{"customer", "cus_1"}, []string{a}},
		{[]string{"customer", "cus_1", "status", "all"}, []string{b, a}},
		{[]string{"price", p.ID}, []string{d, a}},
		{[]string{"price", q.ID}, nil},
	} {
		require.Equal(t, test.want, ids(c.get("/v1/subscriptions", test.filter...)), "%v", test.filter)
	}
	c.refused("GET", "/v1/subscriptions/sub_no", 404, "No such subscription")
	c.refused("GET", "/v1/subscription_items/si_no", 404, "No such subscription_item")
	c.refused("GET", "/v1/subscription_items", 404, "No such subscription", "subscription", "sub_no")
}

func TestChangeSubscription(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p, q := c.AddPrice(stripetest.Price{}), c.AddPrice(stripetest.Price{})
	sub := c.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: p.ID}}})
	changed := c.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) {
		s.Status, s.CollectionPaused, s.AmountThreshold = "past_due", true, 5000
		s.Items = append(s.Items, stripetest.Item{Price: q.ID})
	})
	require.Equal(t, sub.Items[0], changed.Items[0])
	o := c.get("/v1/subscriptions/" + sub.ID)
	require.Equal(t, "past_due", o["status"])
	require.NotNil(t, o["pause_collection"])
	require.Equal(t, 5000.0, o["billing_thresholds"].(object)["amount_gte"])
	require.Len(t, ids(o["items"].(object)), 2)

	c.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Items = s.Items[1:] })
	c.refused("GET", "/v1/subscription_items/"+sub.Items[0].ID, 404, "No such subscription_item")
	c.refused("POST", "/v1/subscription_items/"+sub.Items[0].ID+"/usage_records", 404, "No such subscription_item", "quantity", "1")
	require.Equal(t, []string{changed.Items[1].ID}, ids(c.get("/v1/subscription_items", "subscription", sub.ID)))

	// What a caller was given is a copy.
	changed.Items[1].Price = "price_other"
	require.Equal(t, q.ID, c.get("/v1/subscription_items/" + changed.Items[1].ID)["price"].(object)["id"])
}

func TestExpand(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p := c.AddPrice(stripetest.Price{Tiers: []stripetest.Tier{{UnitAmount: "1"}}})
	c.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", Items: []stripetest.Item{{ID: "si_1", Price: p.ID}},
	})
	o := c.get("/v1/subscriptions/sub_1", "expand[]", "customer", "expand[]", "items.data.price.product",
		"expand[]", "items.data.price.tiers", "expand[]", "latest_invoice.lines")
	require.Equal(t, "cus_1", o["customer"].(object)["id"])
	price := o["items"].(object)["data"].([]any)[0].(object)["price"].(object)
	require.Equal(t, p.Product, price["product"].(object)["id"])
	require.Len(t, price["tiers"], 1)
	item := c.get("/v1/subscription_items/si_1", "expand[]", "subscription.customer")
	require.Equal(t, "cus_1", item["subscription"].(object)["customer"].(object)["id"])
	for _, path := range []string{"color", "status", "customer.color", "items.data.color"} {
		c.refused("GET", "/v1/subscriptions/sub_1", 400, "This property cannot be expanded", "expand[]", path)
	}
	require.IsType(t, "", c.get("/v1/subscriptions/sub_1")["customer"], "what is stored stays as it is")
}

func period(c *caller, id string) (from, to time.Time) {
	c.t.Helper()
	o := c.get("/v1/subscriptions/" + id)
	at := func(name string) time.Time { return time.Unix(int64(o[name].(float64)), 0).UTC() }
	return at("current_period_start"), at("current_period_end")
}

func TestPeriodsRoll(t *testing.T) {
	t.Parallel()
	day := func(text string) time.Time {
		at, err := time.Parse(time.DateOnly, text)
		require.NoError(t, err)
		return at
	}
	for _, test := range []struct {
		price      stripetest.Price
		start, end string // given; "": the default
		ends       []string
	}{
		{stripetest.Price{}, "2026-01-31", "", []string{"2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"}},
		{stripetest.Price{}, "2026-03-01", "2026-03-05", []string{"2026-03-05", "2026-04-05", "2026-05-05"}},
		{stripetest.Price{Interval: "day"}, "2026-02-27", "", []string{"2026-02-28", "2026-03-01"}},
		{stripetest.Price{Interval: "week", IntervalCount: 2}, "2026-02-27", "", []string{"2026-03-13", "2026-03-27"}},
		{stripetest.Price{Interval: "year"}, "2024-02-29", "", []string{"2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"}},
	} {
		c := newCaller(t)
		c.clock.Set(day(test.start))
		sub := stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: c.AddPrice(test.price).ID}}}
		if test.end != "" {
			sub.End = day(test.end)
		}
		id := c.AddSubscription(sub).ID
		begin := day(test.start)
		for _, end := range test.ends {
			from, to := period(c, id)
			require.Equal(t, begin, from, "%+v", test)
			require.Equal(t, day(end), to, "%+v", test)
			begin = to
			c.clock.Set(to.Add(-time.Nanosecond))
			from, _ = period(c, id)
			require.NotEqual(t, to, from)
			c.clock.Set(to)
		}
	}
}

// A clock that was moved far ends all periods in between.
func TestPeriodsRollThroughManyAtOnce(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	item := newItem(c, "sum")
	c.clock.Set(start.AddDate(1, 0, 0))
	require.Len(t, c.get("/v1/subscription_items/"+item+"/usage_record_summaries", "limit", "100")["data"], 13)
}

func TestCancelAtPeriodEnd(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p := c.AddPrice(stripetest.Price{})
	made := c.create("/v1/subscriptions", "customer", "cus_1", "items[0][price]", p.ID, "cancel_at_period_end", "true")
	id, item := made["id"].(string), ids(made["items"].(object))[0]
	c.clock.Set(start.AddDate(0, 1, 0).Add(-time.Second))
	require.Equal(t, "active", c.get("/v1/subscriptions/" + id)["status"])
	c.create("/v1/subscription_items/"+item+"/usage_records", "quantity", "3")
	c.clock.Advance(time.Second)
	o := c.get("/v1/subscriptions/" + id)
	require.Equal(t, "canceled", o["status"])
	require.EqualValues(t, start.AddDate(0, 1, 0).Unix(), o["ended_at"])
	c.refused("POST", "/v1/subscription_items/"+item+"/usage_records", 400, "because the subscription has been canceled", "quantity", "1")
	require.EqualValues(t, 3, c.Billed(item, start))
	require.Len(t, c.get("/v1/subscription_items/" + item + "/usage_record_summaries")["data"], 1)
}

// A later start ends the period that runs, as resetting the billing cycle does.
func TestResetOfThePeriod(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	item := newItem(c, "sum")
	c.clock.Advance(time.Hour)
	c.create("/v1/subscription_items/"+item+"/usage_records", "quantity", "3")
	c.clock.Advance(time.Hour)
	reset := start.Add(2 * time.Hour)
	c.ChangeSubscription("sub_1", func(s *stripetest.Subscription) { s.Start, s.End = reset, time.Time{} })
	from, to := period(c, "sub_1")
	require.Equal(t, reset, from)
	require.Equal(t, reset.AddDate(0, 1, 0), to)
	c.clock.Advance(time.Second)
	c.create("/v1/subscription_items/"+item+"/usage_records", "quantity", "5")
	require.EqualValues(t, 3, c.Billed(item, reset.Add(-time.Second)))
	require.EqualValues(t, 5, c.Billed(item, reset))
}

// Mistakes of a test show at once.
func TestPanics(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	price := c.AddPrice(stripetest.Price{}).ID
	items := []stripetest.Item{{ID: "si_1", Price: price}}
	c.AddSubscription(stripetest.Subscription{ID: "sub_1", Customer: "cus_1", Items: items})
	for says, mistake := range map[string]func(){
		"stripetest: cus_1 exists already":                                      func() { c.AddCustomer(stripetest.Customer{ID: "cus_1"}) },
		"stripetest: there is no cus_2":                                         func() { c.ChangeCustomer("cus_2", func(*stripetest.Customer) {}) },
		`stripetest: Meter.Formula is "avg": use one of ["sum" "count" "last"]`: func() { c.AddMeter(stripetest.Meter{Formula: "avg"}) },
		"stripetest: si_1 exists already": func() {
			c.AddSubscription(stripetest.Subscription{ID: "sub_2", Customer: "cus_1", Items: items})
		},
		`stripetest: subscription sub_2: there is no customer "cus_2"`: func() {
			c.AddSubscription(stripetest.Subscription{ID: "sub_2", Customer: "cus_2", Items: items})
		},
		"stripetest: subscription sub_2 has no items": func() { c.AddSubscription(stripetest.Subscription{ID: "sub_2", Customer: "cus_1"}) },
		"stripetest: subscription sub_1: its period ends before it starts": func() {
			c.ChangeSubscription("sub_1", func(s *stripetest.Subscription) { s.End = s.Start })
		},
		`stripetest: amount "cheap" of a price is no decimal number`: func() { c.AddPrice(stripetest.Price{UnitAmount: "cheap"}) },
		"stripetest: there is no si_9":                               func() { c.Billed("si_9", start) },
	} {
		require.PanicsWithValue(t, says, mistake)
	}
	require.Panics(t, func() { c.Forbid("POST /v1/meter_events") })
	require.Panics(t, func() { c.RequestsTo("usage_records") })
}
