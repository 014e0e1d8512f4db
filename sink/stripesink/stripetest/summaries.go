package stripetest

import (
	"fmt"
	"slices"
	"time"
)

// listEventSummaries lists, newest first, the windows that have usage.
func (s *Server) listEventSummaries(r *request) response {
	m, found := s.meters.byID[r.PathValue("id")]
	if !found {
		return missing("meter", r.PathValue("id"), "id")
	}
	customer := r.required("customer")
	r.required("start_time")
	r.required("end_time")
	start, end := r.int("start_time", 0), r.int("end_time", 0)
	window := r.oneOf("value_grouping_window", "", "hour", "day")
	aligned := windowLength(window)
	if aligned == 0 {
		aligned = 60
	}
	if start%aligned != 0 || end%aligned != 0 || start >= end {
		r.invalid("start_time", "", "start_time and end_time must be aligned with whole minutes, or with the grouping window, and ascend.")
		return response{}
	}
	if _, known := s.customer(customer); !known {
		return missing("customer", customer, "customer")
	}
	seen := s.lagging(s.bySeries[series{m.ID, customer}])
	length := windowLength(window)
	if length == 0 {
		length = end - start
	}
	var windows []int64 // starts of those with usage
	for _, e := range seen {
		if e.Timestamp >= start && e.Timestamp < end && e.canceled.IsZero() {
			windows = append(windows, start+(e.Timestamp-start)/length*length)
		}
	}
	slices.Sort(windows)
	windows = slices.Compact(windows)
	slices.Reverse(windows)
	id := func(from int64) string { return fmt.Sprintf("mtrusg_fake_%s_%s_%d_%d", m.ID, customer, from, length) }
	return page(r, windows, id, func(from int64) object {
		return object{
			"id": id(from), "object": "billing.meter_event_summary", "livemode": s.Live, "meter": m.ID,
			"start_time": from, "end_time": from + length,
			"aggregated_value": float64(m.aggregate(seen, func(at int64) bool { return at >= from && at < from+length })),
		}
	})
}

// lagging is what summaries show of events: what was so some time ago.
func (s *Server) lagging(events []*event) []*event {
	if s.SummaryLag == 0 {
		return events
	}
	by := s.now().Add(-s.SummaryLag)
	var seen []*event
	for _, e := range events {
		if e.received.After(by) {
			continue
		}
		then := *e
		if then.canceled.After(by) {
			then.canceled = time.Time{}
		}
		seen = append(seen, &then)
	}
	return seen
}
