package stripetest

import (
	"cmp"
	"time"
)

// Meter is a billing meter. Only EventName is required.
//
// Concurrency: a plain value.
type Meter struct {
	ID          string // "": made up
	EventName   string
	DisplayName string // "": the event name
	Status      string // "": active, else inactive
	Formula     string // "": sum, else count or last
	TimeWindow  string // "": none, else hour or day, of which the event received last counts alone
	CustomerKey string // "": stripe_customer_id
	ValueKey    string // "": value
}

type meter struct {
	Meter
	created     time.Time
	deactivated time.Time // zero: it was not
}

// AddMeter adds a billing meter and returns it as it is now. It panics if the ID is
// taken.
func (s *Server) AddMeter(m Meter) Meter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addMeter(m).Meter
}

// ChangeMeter changes a billing meter, which must exist.
func (s *Server) ChangeMeter(id string, change func(*Meter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.meters.get(id)
	change(&m.Meter)
	m.ID = id
	m.check()
	m.setStatus(m.Status, s.now())
}

func (s *Server) addMeter(m Meter) *meter {
	m.ID = cmp.Or(m.ID, s.newID("mtr"))
	m.DisplayName = cmp.Or(m.DisplayName, m.EventName)
	m.Formula = cmp.Or(m.Formula, "sum")
	m.CustomerKey = cmp.Or(m.CustomerKey, "stripe_customer_id")
	m.ValueKey = cmp.Or(m.ValueKey, "value")
	m.Status = cmp.Or(m.Status, "active")
	m.check()
	added := &meter{Meter: m, created: s.now()}
	added.setStatus(m.Status, added.created)
	s.meters.add(m.ID, added)
	return added
}

func (m Meter) check() {
	must("Meter.Formula", m.Formula, "sum", "count", "last")
	must("Meter.Status", m.Status, "active", "inactive")
	must("Meter.TimeWindow", m.TimeWindow, "", "hour", "day")
}

func (m *meter) setStatus(status string, now time.Time) {
	m.Status, m.deactivated = status, time.Time{}
	if status != "active" {
		m.deactivated = now
	}
}

// meter finds the meter of an event name: the active one, else an inactive one.
func (s *Server) meter(eventName string) (m *meter, found bool) {
	for _, id := range s.meters.ids {
		if other := s.meters.byID[id]; other.EventName == eventName && (!found || m.Status != "active") {
			m, found = other, true
		}
	}
	return m, found
}

func (s *Server) meterObject(m *meter) object {
	return object{
		"id": m.ID, "object": "billing.meter", "event_name": m.EventName, "display_name": m.DisplayName,
		"status": m.Status, "created": m.created.Unix(), "updated": m.created.Unix(), "livemode": s.Live,
		"default_aggregation": object{"formula": m.Formula},
		"event_time_window":   orNull(m.TimeWindow),
		"customer_mapping":    object{"event_payload_key": m.CustomerKey, "type": "by_id"},
		"value_settings":      object{"event_payload_key": m.ValueKey},
		"status_transitions":  object{"deactivated_at": unixOrNull(m.deactivated)},
	}
}

func (s *Server) getMeter(r *request) response {
	m, found := s.meters.byID[r.PathValue("id")]
	if !found {
		return missing("meter", r.PathValue("id"), "id")
	}
	return ok(s.meterObject(m))
}

func (s *Server) listMeters(r *request) response {
	return page(r, s.meters.newest(func(m *meter) bool { return matches(r.get("status"), m.Status) }),
		func(m *meter) string { return m.ID }, s.meterObject)
}

func (s *Server) createMeter(r *request) func() response {
	r.only("event_name", "display_name", "default_aggregation", "event_time_window", "customer_mapping", "value_settings")
	r.required("default_aggregation[formula]")
	m := Meter{
		EventName:   r.required("event_name"),
		DisplayName: r.required("display_name"),
		Formula:     r.oneOf("default_aggregation[formula]", "sum", "count", "last"),
		TimeWindow:  r.oneOf("event_time_window", "", "hour", "day"),
		CustomerKey: r.get("customer_mapping[event_payload_key]"),
		ValueKey:    r.get("value_settings[event_payload_key]"),
	}
	r.oneOf("customer_mapping[type]", "by_id")
	if len(m.EventName) > maxName {
		r.invalid("event_name", "", "Invalid string: must be at most %d characters", maxName)
	}
	return func() response {
		if other, found := s.meter(m.EventName); found && other.Status == "active" {
			return invalid("event_name", "", "An active meter with the event name %s exists already.", m.EventName)
		}
		return ok(s.meterObject(s.addMeter(m)))
	}
}

func (s *Server) setMeterStatus(status string) func(*request) func() response {
	return func(r *request) func() response {
		r.only()
		id := r.PathValue("id")
		return func() response {
			m, found := s.meters.byID[id]
			switch {
			case !found:
				return missing("meter", id, "id")
			case m.Status == status:
				return invalid("", "", "The meter is %s already.", status)
			}
			if other, taken := s.meter(m.EventName); taken && status == "active" && other.Status == "active" {
				return invalid("", "", "An active meter with the event name %s exists already.", m.EventName)
			}
			m.setStatus(status, s.now())
			return ok(s.meterObject(m))
		}
	}
}
