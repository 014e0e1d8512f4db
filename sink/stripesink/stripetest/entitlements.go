package stripetest

import (
	"fmt"
	"slices"
)

// Entitlement is an active entitlement: that a customer may use a feature. The Server
// derives none from subscriptions and takes none away, except when the customer is
// deleted: add and remove them as your test needs it. With Stripe, too, a
// paused subscription keeps its entitlements, and a feature that is added to a product
// does not reach those who subscribed before. Customer and LookupKey are required.
//
// Concurrency: a plain value.
type Entitlement struct {
	ID        string // "": made up
	Customer  string // must exist
	LookupKey string // of the feature
	Feature   string // its ID; "": made up
}

// AddEntitlement adds an active entitlement and returns it as it is now. It panics if
// the customer does not exist, or has an entitlement to the same feature.
func (s *Server) AddEntitlement(e Entitlement) Entitlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, found := s.customer(e.Customer); !found || c.Deleted {
		panic(fmt.Sprintf("stripetest: entitlement to %q: there is no customer %q", e.LookupKey, e.Customer))
	}
	if e.LookupKey == "" {
		panic("stripetest: an entitlement has no LookupKey")
	}
	if s.entitlement(e.Customer, e.LookupKey) >= 0 {
		panic(fmt.Sprintf("stripetest: %s is entitled to %q already", e.Customer, e.LookupKey))
	}
	if e.ID == "" {
		e.ID = s.newID("ent")
	}
	if e.Feature == "" {
		e.Feature = s.newID("feat")
	}
	s.entitlements = append(s.entitlements, e)
	return e
}

// RemoveEntitlement takes away a customer's entitlement, which must exist.
func (s *Server) RemoveEntitlement(customer, lookupKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.entitlement(customer, lookupKey)
	if at < 0 {
		panic(fmt.Sprintf("stripetest: %s is not entitled to %q", customer, lookupKey))
	}
	s.entitlements = slices.Delete(s.entitlements, at, at+1)
}

func (s *Server) entitlement(customer, lookupKey string) (at int) {
	return slices.IndexFunc(s.entitlements, func(e Entitlement) bool {
		return e.Customer == customer && e.LookupKey == lookupKey
	})
}

// entitlementsOf are a customer's, newest first.
func (s *Server) entitlementsOf(customer string) (all []Entitlement) {
	for _, e := range slices.Backward(s.entitlements) {
		if e.Customer == customer {
			all = append(all, e)
		}
	}
	return all
}

func (s *Server) entitlementObject(e Entitlement) object {
	return object{
		"id": e.ID, "object": "entitlements.active_entitlement", "feature": e.Feature, "livemode": s.Live, "lookup_key": e.LookupKey,
	}
}

func (s *Server) listEntitlements(r *request) response {
	customer := r.required("customer")
	if c, found := s.customer(customer); customer != "" && (!found || c.Deleted) {
		return missing("customer", customer, "customer")
	}
	return page(r, s.entitlementsOf(customer), func(e Entitlement) string { return e.ID }, s.entitlementObject)
}

func (s *Server) getEntitlement(r *request) response {
	id := r.PathValue("id")
	at := slices.IndexFunc(s.entitlements, func(e Entitlement) bool { return e.ID == id })
	if at < 0 {
		return missing("active_entitlement", id, "id")
	}
	return ok(s.entitlementObject(s.entitlements[at]))
}
