package stripetest

import "time"

// series are the events of one customer for one meter.
type series struct{ meter, customer string }

// Total is what Stripe would bill a customer by the meters of this event name, by
// their formulas, over all time.
func (s *Server) Total(customer, eventName string) (total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.meters.byID {
		if m.EventName == eventName {
			total += m.aggregate(s.bySeries[series{m.ID, customer}], func(int64) bool { return true })
		}
	}
	return total
}

// aggregate combines the events, given in the order of receipt, whose second is held,
// by the meter's formula. Of a window of a pre-aggregated meter the event received
// last stands for all.
func (m *meter) aggregate(events []*event, holds func(second int64) bool) (total int64) {
	latest := int64(-1)
	for _, e := range m.standing(events) {
		if !e.canceled.IsZero() || !holds(e.Timestamp) {
			continue
		}
		switch m.Formula {
		case "sum":
			total += e.value
		case "count":
			total++
		case "last":
			if e.Timestamp >= latest {
				latest, total = e.Timestamp, e.value
			}
		}
	}
	return total
}

// standing leaves out the events that a later one of the same window overwrote.
func (m *meter) standing(events []*event) []*event {
	length := windowLength(m.TimeWindow)
	if length == 0 {
		return events
	}
	last := map[int64]*event{}
	for _, e := range events {
		if e.canceled.IsZero() {
			last[e.Timestamp/length] = e
		}
	}
	var standing []*event
	for _, e := range events {
		if last[e.Timestamp/length] == e {
			standing = append(standing, e)
		}
	}
	return standing
}

// windowLength is that of a UTC window, in seconds; 0: none.
func windowLength(window string) int64 {
	switch window {
	case "hour":
		return int64(time.Hour / time.Second)
	case "day":
		return int64(24 * time.Hour / time.Second)
	}
	return 0
}
