package stripetest

import (
	"slices"
	"time"
)

// UsageRecord is a usage record that was taken.
//
// Concurrency: a plain value.
type UsageRecord struct {
	Item      string
	Action    string // set or increment
	Quantity  int64
	Timestamp int64
}

// UsageRecords are all that were taken of an item, in the order in which they were.
func (s *Server) UsageRecords(item string) []UsageRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	var of []UsageRecord
	for _, r := range s.records {
		if r.Item == item {
			of = append(of, r)
		}
	}
	return of
}

// Billed is the quantity on the invoice of the period of an item that holds at: of
// usage records by the price's aggregate_usage, or of meter events by the formula
// of its meter. It is 0 outside of all periods so far, and for licensed prices. It
// panics if there is no such item.
func (s *Server) Billed(item string, at time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items.get(item)
	s.roll(it.sub)
	for _, p := range it.sub.periods() {
		if p.holds(at.Unix()) {
			return s.billed(it, p)
		}
	}
	return 0
}

func (s *Server) billed(it *item, p period) int64 {
	price := s.prices.byID[it.Price]
	if m, metered := s.meters.byID[price.Meter]; metered {
		return m.aggregate(s.bySeries[series{m.ID, it.sub.Customer}], p.holds)
	}
	return it.aggregate(price.Aggregate, p)
}

// aggregate is the usage of one period.
func (it *item) aggregate(mode string, p period) (total int64) {
	latest := int64(-1)
	for second, quantity := range it.usage {
		switch {
		case mode == "last_ever" && second < p.end.Unix() && second > latest,
			mode == "last_during_period" && p.holds(second) && second > latest:
			latest, total = second, quantity
		case mode == "sum" && p.holds(second):
			total += quantity
		case mode == "max" && p.holds(second):
			total = max(total, quantity)
		}
	}
	return total
}

func (s *Server) createUsageRecord(r *request) func() response {
	r.only("quantity", "timestamp", "action")
	id := r.PathValue("id")
	r.required("quantity")
	record := UsageRecord{
		Item:     id,
		Action:   r.oneOf("action", "increment", "set"),
		Quantity: r.int("quantity", 0),
	}
	if at := r.get("timestamp"); at == "" || at == "now" {
		record.Timestamp = s.now().Unix()
	} else {
		record.Timestamp = r.int("timestamp", 0)
	}
	if record.Quantity < 0 {
		r.invalid("quantity", "parameter_invalid_integer", "This value must be greater than or equal to 0.")
	}
	r.lock = "usage record " + id
	return func() response {
		it, found := s.item(id)
		if !found {
			return missing("subscription_item", id, "subscription_item")
		}
		if bad := s.refuseUsage(it, record); bad != nil {
			return *bad
		}
		if record.Action == "set" {
			it.usage[record.Timestamp] = record.Quantity
		} else {
			it.usage[record.Timestamp] += record.Quantity
		}
		s.records = append(s.records, record)
		return ok(object{
			"id": s.newID("mbur"), "object": "usage_record", "livemode": s.Live,
			"quantity": it.usage[record.Timestamp], "subscription_item": id, "timestamp": record.Timestamp,
		})
	}
}

// refuseUsage says why Stripe would not take a usage record.
func (s *Server) refuseUsage(it *item, record UsageRecord) *response {
	price, now := s.prices.byID[it.Price], s.now()
	var bad response
	switch {
	case price.Aggregate == "":
		bad = invalid("", "", "Cannot create a usage record for `%s` because it is not on the legacy metered billing system. "+
			"Call /v1/billing/meter_events instead.", it.ID)
	case slices.Contains([]string{"canceled", "incomplete_expired"}, it.sub.Status):
		bad = invalid("", "", "Cannot create the usage record because the subscription has been canceled.")
	case record.Action == "set" && (it.UsageThreshold != 0 || it.sub.AmountThreshold != 0):
		bad = invalid("action", "", "The only action for a subscription with billing thresholds is increment.")
	case record.Timestamp > now.Unix():
		bad = invalid("timestamp", "", "Cannot create the usage record with this timestamp because timestamps must not be in the future.")
	case !s.inTime(it.sub, price, record.Timestamp, now):
		bad = invalid("timestamp", "", "Cannot create the usage record with this timestamp because timestamps must be after "+
			"the subscription's last invoice period (or current period start time).")
	default:
		return nil
	}
	return &bad
}

// inTime reports whether the running period takes usage of a second, or still the
// one before.
func (s *Server) inTime(sub *subscription, p *price, second int64, now time.Time) bool {
	if second > sub.Start.Unix() {
		return true
	}
	started := len(sub.past) > 0 && now.Before(sub.Start.Add(s.Grace))
	return p.Aggregate == "sum" && started && second < sub.Start.Unix() && second >= sub.Start.Add(-s.Grace).Unix()
}

func (s *Server) listUsageSummaries(r *request) response {
	it, found := s.item(r.PathValue("id"))
	if !found {
		return missing("subscription_item", r.PathValue("id"), "subscription_item")
	}
	id := func(p period) string { return "sis_fake" + it.ID + p.start.Format("20060102150405") }
	return page(r, it.sub.periods(), id, func(p period) object {
		var invoice any // of the running period there is none yet
		if p != it.sub.current() || it.sub.Status == "canceled" {
			invoice = "in_fake" + it.sub.ID + p.start.Format("20060102150405")
		}
		return object{
			"id": id(p), "object": "usage_record_summary", "invoice": invoice, "livemode": s.Live,
			"period":            object{"start": p.start.Unix(), "end": p.end.Unix()},
			"subscription_item": it.ID, "total_usage": s.billed(it, p),
		}
	})
}
