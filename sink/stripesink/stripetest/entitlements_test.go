package stripetest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const entitlements = "/v1/entitlements/active_entitlements"

func TestEntitlements(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	require.Empty(t, ids(c.get(entitlements, "customer", "cus_1")))
	e := c.AddEntitlement(stripetest.Entitlement{Customer: "cus_1", LookupKey: "reports"})
	require.NotEmpty(t, e.ID)
	require.NotEmpty(t, e.Feature)
	want := object{
		"id": e.ID, "object": "entitlements.active_entitlement", "feature": e.Feature, "livemode": false, "lookup_key": "reports",
	}
	require.Equal(t, []any{want}, c.get(entitlements, "customer", "cus_1")["data"])
	require.Equal(t, want, c.get(entitlements+"/"+e.ID))

	c.refused("GET", entitlements, 400, "Missing required param: customer.")
	c.refused("GET", entitlements, 404, "No such customer", "customer", "cus_2")
	c.refused("GET", entitlements+"/ent_2", 404, "No such active_entitlement")
	for _, bad := range []stripetest.Entitlement{
		{Customer: "cus_1", LookupKey: "reports"}, {Customer: "cus_1"}, {Customer: "cus_2", LookupKey: "reports"},
	} {
		require.Panics(t, func() { c.AddEntitlement(bad) }, "%+v", bad)
	}
	require.Panics(t, func() { c.RemoveEntitlement("cus_1", "exports") })
	c.RemoveEntitlement("cus_1", "reports")
	require.Empty(t, ids(c.get(entitlements, "customer", "cus_1")))
}

func TestEntitlementPages(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	for i := range 25 {
		c.AddEntitlement(stripetest.Entitlement{ID: fmt.Sprint("ent_", i), Customer: "cus_1", LookupKey: fmt.Sprint(i)})
	}
	first := c.get(entitlements, "customer", "cus_1")
	require.Equal(t, true, first["has_more"])
	require.Len(t, ids(first), 10)
	require.Equal(t, "ent_24", ids(first)[0])
	rest := c.get(entitlements, "customer", "cus_1", "starting_after", ids(first)[9], "limit", "100")
	require.Equal(t, false, rest["has_more"])
	require.Len(t, ids(rest), 15)
	require.Equal(t, "ent_0", ids(rest)[14])
}

// They stay while a subscription is paused, and go with the customer.
func TestEntitlementsGoWithTheCustomer(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	sub := c.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: c.AddPrice(stripetest.Price{}).ID}}})
	c.AddEntitlement(stripetest.Entitlement{Customer: "cus_1", LookupKey: "reports"})
	c.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "paused" })
	require.Len(t, ids(c.get(entitlements, "customer", "cus_1")), 1)
	status, _ := c.do("DELETE", "/v1/customers/cus_1")
	require.Equal(t, 200, status)
	c.refused("GET", entitlements, 404, "No such customer", "customer", "cus_1")
	require.Panics(t, func() { c.AddEntitlement(stripetest.Entitlement{Customer: "cus_1", LookupKey: "x"}) })
}

func TestNotify(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	sub := c.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", Items: []stripetest.Item{{Price: c.AddPrice(stripetest.Price{}).ID}},
	})
	for i := range 12 {
		c.AddEntitlement(stripetest.Entitlement{Customer: "cus_1", LookupKey: fmt.Sprint(i)})
	}
	about := func(kind, id string) (o object) {
		d := c.Notify("whsec_1", kind, id)
		require.Equal(t, stripetest.Sign("whsec_1", c.clock.Now(), d.Body), d.Signature)
		e := decode(t, string(d.Body))
		require.Equal(t, object{
			"id": d.EventID, "object": "event", "type": kind, "api_version": "2023-10-16", "created": float64(start.Unix()),
			"livemode": false, "pending_webhooks": 1.0, "request": object{"id": nil, "idempotency_key": nil}, "data": e["data"],
		}, e)
		require.Equal(t, kind, d.Type)
		return e["data"].(object)["object"].(object)
	}
	c.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "unpaid" })
	require.Equal(t, c.get("/v1/subscriptions/sub_1"), about("customer.subscription.updated", "sub_1"))
	summary := about("entitlements.active_entitlement_summary.updated", "cus_1")
	require.Equal(t, "cus_1", summary["customer"])
	require.Len(t, ids(summary["entitlements"].(object)), 10, "no more than that")
	require.Equal(t, true, summary["entitlements"].(object)["has_more"])
	require.Equal(t, c.get("/v1/customers/cus_1"), about("customer.updated", "cus_1"))
	c.do("DELETE", "/v1/customers/cus_1")
	deleted := about("customer.deleted", "cus_1")
	require.Equal(t, "cus_1", deleted["id"])
	require.NotContains(t, deleted, "deleted", "the event shows the customer as it was")

	require.Panics(t, func() { c.Notify("whsec_1", "invoice.paid", "cus_1") })
	require.Panics(t, func() { c.Notify("whsec_1", "customer.subscription.updated", "sub_2") })
	require.Panics(t, func() { c.Notify("whsec_1", "customer.updated", "cus_2") })
}

func TestCancelAt(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	at := start.Add(45 * 24 * time.Hour) // in the second period
	c.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", CancelAt: at, Items: []stripetest.Item{{Price: c.AddPrice(stripetest.Price{}).ID}},
	})
	require.Equal(t, float64(at.Unix()), c.get("/v1/subscriptions/sub_1")["cancel_at"])
	c.clock.Set(at.Add(-time.Second))
	require.Equal(t, "active", c.get("/v1/subscriptions/sub_1")["status"])
	c.clock.Set(at.Add(time.Hour))
	ended := c.get("/v1/subscriptions/sub_1")
	require.Equal(t, "canceled", ended["status"])
	require.Equal(t, float64(at.Unix()), ended["ended_at"])
}
