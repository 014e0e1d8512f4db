package stripetest

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"
)

const (
	maxName   = 100 // characters of an event name or identifier
	maxPast   = 35 * 24 * time.Hour
	maxFuture = 5 * time.Minute
)

// eventLock starts the lock of every event.
const eventLock = "meter event "

// Event is a meter event that was accepted.
//
// Concurrency: a plain value; treat Payload as read-only.
type Event struct {
	Identifier string
	Name       string
	Payload    map[string]string
	Timestamp  int64
	Problem    string // code of the error report, of an event that is billed to nobody; "": none
	Canceled   bool   // by an adjustment
}

type event struct {
	Event
	received time.Time
	canceled time.Time // zero: it was not
	value    int64
}

// Events are all meter events that were accepted, in that order.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Event, len(s.events))
	for i, e := range s.events {
		all[i] = e.Event
	}
	return all
}

// Unbilled is how many events were answered 200 and then billed to nobody, for
// want of a meter, a customer or a value.
func (s *Server) Unbilled() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Problem != "" {
			n++
		}
	}
	return n
}

func (s *Server) createEvent(r *request) func() response {
	r.only("event_name", "identifier", "payload", "timestamp")
	now := s.now()
	e := Event{
		Identifier: r.get("identifier"),
		Name:       r.required("event_name"),
		Payload:    r.dict("payload"),
		Timestamp:  r.int("timestamp", now.Unix()),
	}
	if len(e.Payload) == 0 {
		r.required("payload")
	}
	if len(e.Name) > maxName || len(e.Identifier) > maxName {
		r.invalid("", "", "Invalid string: must be at most %d characters", maxName)
	}
	if at := time.Unix(e.Timestamp, 0); at.Before(now.Add(-maxPast)) || at.After(now.Add(maxFuture)) {
		r.invalid("timestamp", "", "The timestamp must be within the past 35 days or up to 5 minutes in the future.")
	}
	if e.Identifier == "" {
		e.Identifier = rand.Text()
	}
	r.lock = eventLock + e.Name
	if m, found := s.meter(e.Name); found {
		r.lock += " of " + e.Payload[m.CustomerKey]
	}
	return func() response { return s.record(e) }
}

// record takes e unless its identifier was seen within a day, and bills it if it
// can be billed; the answer is the same either way.
func (s *Server) record(e Event) response {
	now := s.now()
	if first, seen := s.identifiers[e.Identifier]; seen && now.Sub(first.received) < keyLife {
		res := invalid("", "", "An event already exists with identifier %s.", e.Identifier)
		res.header = http.Header{"Stripe-Should-Retry": {"false"}}
		return res
	}
	taken := &event{Event: e, received: now}
	s.identifiers[e.Identifier] = taken
	s.events = append(s.events, taken)
	m, _ := s.meter(e.Name)
	var message string
	if taken.Problem, message = s.judge(m, taken); taken.Problem == "" {
		of := series{m.ID, e.Payload[m.CustomerKey]}
		s.bySeries[of] = append(s.bySeries[of], taken)
	} else {
		s.reject(m, taken, message)
	}
	return ok(object{
		"object": "billing.meter_event", "created": now.Unix(), "event_name": e.Name, "livemode": s.Live,
		"identifier": e.Identifier, "payload": maps.Clone(e.Payload), "timestamp": e.Timestamp,
	})
}

// judge says why an event is billed to nobody, by the code of the error report, or
// reads its value.
func (s *Server) judge(m *meter, e *event) (code, message string) {
	if m == nil {
		return "no_meter", fmt.Sprintf("No meter was found matching event_name %s.", e.Name)
	}
	if m.Status != "active" {
		return "archived_meter", fmt.Sprintf("The meter %s is archived.", m.ID)
	}
	id, given := e.Payload[m.CustomerKey]
	if !given {
		return "meter_event_no_customer_defined", fmt.Sprintf("Customer mapping key %s not found in payload.", m.CustomerKey)
	}
	if c, found := s.customer(id); !found || c.Deleted {
		return "meter_event_customer_not_found", fmt.Sprintf("Customer %s not found.", id)
	}
	text, given := e.Payload[m.ValueKey]
	if m.Formula == "count" {
		return "", ""
	}
	if !given {
		return "meter_event_value_not_found", fmt.Sprintf("Value key %s not found in payload.", m.ValueKey)
	}
	var err error
	if e.value, err = strconv.ParseInt(text, 10, 64); err != nil {
		return "meter_event_invalid_value", fmt.Sprintf("Invalid value %s.", text)
	}
	return "", ""
}
