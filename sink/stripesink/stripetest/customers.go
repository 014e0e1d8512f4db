package stripetest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Customer may be billed. Its zero value will do.
//
// Concurrency: a plain value.
type Customer struct {
	ID       string            // "": made up
	Currency string            // of all its subscriptions; "": that of the first
	Deleted  bool              // its subscriptions are canceled, and events bill it no more
	Metadata map[string]string // nil: none
}

type customer struct {
	Customer
	created time.Time
}

// AddCustomer adds a customer and returns it as it is now. It panics if the ID is
// taken.
func (s *Server) AddCustomer(c Customer) Customer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addCustomer(c).Customer
}

// ChangeCustomer changes a customer, which must exist.
func (s *Server) ChangeCustomer(id string, change func(*Customer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.customers.get(id)
	change(&c.Customer)
	c.ID = id
	if c.Deleted {
		s.customerLeaves(id)
	}
}

func (s *Server) addCustomer(c Customer) *customer {
	c.ID = cmp.Or(c.ID, s.newID("cus"))
	c.Metadata = maps.Clone(c.Metadata)
	added := &customer{c, s.now()}
	s.customers.add(c.ID, added)
	return added
}

// customer finds who is there, deleted or not.
func (s *Server) customer(id string) (*customer, bool) {
	c, found := s.customers.byID[id]
	if !found && s.AnyCustomer && strings.HasPrefix(id, "cus_") {
		return s.addCustomer(Customer{ID: id}), true
	}
	return c, found
}

// customerLeaves cancels the subscriptions of a customer that was deleted, and ends
// what it was entitled to.
func (s *Server) customerLeaves(id string) {
	s.entitlements = slices.DeleteFunc(s.entitlements, func(e Entitlement) bool { return e.Customer == id })
	for _, sub := range s.subscriptions.byID {
		if sub.Customer == id {
			s.cancel(s.roll(sub), s.now())
		}
	}
}

func (s *Server) customerObject(c *customer) object {
	if c.Deleted {
		return object{"id": c.ID, "object": "customer", "deleted": true}
	}
	return object{
		"id": c.ID, "object": "customer", "created": c.created.Unix(), "livemode": s.Live,
		"currency": orNull(c.Currency), "metadata": orEmpty(c.Metadata),
		"address": nil, "balance": 0, "default_source": nil, "delinquent": false, "description": nil,
		"discount": nil, "email": nil, "invoice_prefix": "FAKE", "name": nil, "next_invoice_sequence": 1,
		"invoice_settings": object{"custom_fields": nil, "default_payment_method": nil, "footer": nil, "rendering_options": nil},
		"phone":            nil, "preferred_locales": []string{}, "shipping": nil, "tax_exempt": "none", "test_clock": nil,
	}
}

func (s *Server) getCustomer(r *request) response {
	c, found := s.customer(r.PathValue("id"))
	if !found {
		return missing("customer", r.PathValue("id"), "id")
	}
	return ok(s.customerObject(c))
}

func (s *Server) createCustomer(r *request) func() response {
	r.only("metadata", "name", "email", "description", "payment_method", "invoice_settings", "test_clock")
	c := Customer{Metadata: r.dict("metadata")}
	return func() response { return ok(s.customerObject(s.addCustomer(c))) }
}

func (s *Server) deleteCustomer(r *request) func() response {
	id := r.PathValue("id")
	return func() response {
		c, found := s.customer(id)
		if !found || c.Deleted {
			return missing("customer", id, "id")
		}
		c.Deleted = true
		s.customerLeaves(id)
		return ok(s.customerObject(c))
	}
}

// orNull is JSON's null for what is not set.
func orNull[T comparable](v T) any {
	if v == *new(T) {
		return nil
	}
	return v
}

func orEmpty(metadata map[string]string) map[string]string {
	if metadata == nil {
		return map[string]string{}
	}
	return maps.Clone(metadata)
}
