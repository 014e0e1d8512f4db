package stripetest

import "strings"

// summarized is how many entitlements an event about them lists at most.
const summarized = 10

// Notify returns an event that tells of a subscription or customer as it is now, signed
// with secret at the server's time, in the form of API v1. kind is its type:
// "customer.subscription." and what happened to the subscription with the ID; or
// "entitlements.active_entitlement_summary.updated" or "customer." and what happened,
// with the ID of the customer. It panics if there is no such kind or thing.
//
// Nothing is notified of by itself; with Stripe, too, events get lost.
func (s *Server) Notify(secret, kind, id string) Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var about object
	switch {
	case strings.HasPrefix(kind, "customer.subscription."):
		about = s.subscriptionObject(s.roll(s.subscriptions.get(id)))
	case strings.HasPrefix(kind, "entitlements.active_entitlement_summary."):
		about = s.entitlementSummary(s.customers.get(id).ID)
	case strings.HasPrefix(kind, "customer."):
		about = s.customerObject(s.customers.get(id))
		if kind == "customer.deleted" { // the event shows the customer as it was
			about = s.customerObject(&customer{Customer: Customer{ID: id}, created: s.customers.get(id).created})
		}
	default:
		panic("stripetest: no events of type " + kind + " are made here")
	}
	event := s.newID("evt")
	body := ok(object{
		"id": event, "object": "event", "api_version": apiVersion, "created": s.now().Unix(), "livemode": s.Live, "type": kind,
		"pending_webhooks": 1, "request": object{"id": nil, "idempotency_key": nil}, "data": object{"object": about},
	}).encoded().body
	return Delivery{event, kind, body, Sign(secret, s.now(), body)}
}

// apiVersion is that of the objects here.
const apiVersion = "2023-10-16"

// entitlementSummary lists the first few, as Stripe's events do.
func (s *Server) entitlementSummary(customer string) object {
	all, data := s.entitlementsOf(customer), []any{}
	for _, e := range all[:min(len(all), summarized)] {
		data = append(data, s.entitlementObject(e))
	}
	return object{
		"object": "entitlements.active_entitlement_summary", "customer": customer, "livemode": s.Live,
		"entitlements": object{
			"object": "list", "url": "/v1/customer/" + customer + "/entitlements", "has_more": len(all) > summarized, "data": data,
		},
	}
}
