package stripetest

// subscription finds a subscription, its period up to date.
func (s *Server) subscription(id string) (*subscription, bool) {
	sub, found := s.subscriptions.byID[id]
	if found {
		s.roll(sub)
	}
	return sub, found
}

// item finds an item that was not deleted, its subscription's period up to date.
func (s *Server) item(id string) (*item, bool) {
	it, found := s.items.byID[id]
	if !found || it.deleted {
		return nil, false
	}
	s.roll(it.sub)
	return it, true
}

func (s *Server) getSubscription(r *request) response {
	sub, found := s.subscription(r.PathValue("id"))
	if !found {
		return missing("subscription", r.PathValue("id"), "id")
	}
	return ok(s.subscriptionObject(sub))
}

// listSubscriptions leaves out canceled ones unless they are asked for.
func (s *Server) listSubscriptions(r *request) response {
	status := r.get("status")
	return page(r, s.subscriptions.newest(func(sub *subscription) bool {
		s.roll(sub)
		if status == "" && sub.Status == "canceled" || status != "" && status != "all" && status != sub.Status {
			return false
		}
		return matches(r.get("customer"), sub.Customer) && (r.get("price") == "" || sub.has(r.get("price")))
	}), func(sub *subscription) string { return sub.ID }, s.subscriptionObject)
}

func (sub *subscription) has(price string) bool {
	for _, it := range sub.Items {
		if it.Price == price {
			return true
		}
	}
	return false
}

func (s *Server) getItem(r *request) response {
	it, found := s.item(r.PathValue("id"))
	if !found {
		return missing("subscription_item", r.PathValue("id"), "item")
	}
	return ok(s.itemObject(it))
}

func (s *Server) listItems(r *request) response {
	sub, found := s.subscription(r.required("subscription"))
	if !found {
		return missing("subscription", r.get("subscription"), "subscription")
	}
	return page(r, s.items.newest(func(it *item) bool { return it.sub == sub && !it.deleted }),
		func(it *item) string { return it.ID }, s.itemObject)
}

func (s *Server) cancelSubscription(r *request) func() response {
	r.only("invoice_now", "prorate", "cancellation_details")
	id := r.PathValue("id")
	return func() response {
		sub, found := s.subscription(id)
		if !found || sub.Status == "canceled" {
			return missing("subscription", id, "id")
		}
		s.cancel(sub, s.now())
		return ok(s.subscriptionObject(sub))
	}
}
