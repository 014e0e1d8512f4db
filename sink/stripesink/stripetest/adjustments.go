package stripetest

// createAdjustment cancels an event. The answer is "pending", for Stripe does it
// later; what is billed changes at once here, and the summaries with their lag.
func (s *Server) createAdjustment(r *request) func() response {
	r.only("event_name", "type", "cancel")
	name, kind, id := r.required("event_name"), r.required("type"), r.required("cancel[identifier]")
	r.oneOf("type", "cancel")
	return func() response {
		now := s.now()
		e, found := s.identifiers[id]
		switch {
		case !found || e.Name != name:
			return invalid("cancel[identifier]", "resource_missing", "No such meter event: '%s'", id)
		case now.Sub(e.received) >= keyLife:
			return invalid("cancel[identifier]", "", "Events can only be canceled within 24 hours of Stripe receiving them.")
		case !e.canceled.IsZero():
			return invalid("cancel[identifier]", "", "The event with identifier %s is canceled already.", id)
		}
		e.canceled, e.Canceled = now, true
		return ok(object{
			"object": "billing.meter_event_adjustment", "event_name": name, "livemode": s.Live,
			"status": "pending", "type": kind, "cancel": object{"identifier": id},
		})
	}
}
