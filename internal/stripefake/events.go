package stripefake

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxPast   = 35 * 24 * time.Hour
	maxFuture = 5 * time.Minute
)

// Event is a meter event that was recorded.
//
// Concurrency: a plain value; treat Payload as read-only.
type Event struct {
	Identifier string
	Name       string
	Payload    map[string]string
	Timestamp  int64
}

// Total is what Stripe would bill a customer by the meter of this event name.
func (s *Server) Total(customer, eventName string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totals[series{customer, eventName}]
}

// Events are all recorded meter events, in the order they were recorded.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Unbilled is how many events were answered 200 and then billed to nobody, for
// want of a meter, a customer or a value.
func (s *Server) Unbilled() int { s.mu.Lock(); defer s.mu.Unlock(); return s.unbilled }

func (s *Server) createEvent(r *request) response {
	e, bad := s.parseEvent(r)
	if bad != nil {
		return *bad // validation comes before the idempotency layer: not stored
	}
	return s.once(r, func() response {
		done, ok := s.begin(e)
		if !ok {
			return failure(http.StatusConflict, "invalid_request_error", "lock_timeout",
				"Another request for this customer and meter is being processed.")
		}
		defer done()
		r.fault.wait(r.Request)
		if r.fault.Answer == Error500 && !r.fault.Applied {
			return failure(http.StatusInternalServerError, "api_error", "", "An unknown error occurred")
		}
		res := s.record(e)
		if r.fault.Answer == Error500 {
			return failure(http.StatusInternalServerError, "api_error", "", "An unknown error occurred")
		}
		return res
	})
}

func (s *Server) parseEvent(r *request) (Event, *response) {
	refuse := func(code, format string, args ...any) (Event, *response) {
		res := failure(http.StatusBadRequest, "invalid_request_error", code, fmt.Sprintf(format, args...))
		return Event{}, &res
	}
	now := s.now()
	e := Event{
		Identifier: r.form.Get("identifier"),
		Name:       r.form.Get("event_name"),
		Payload:    map[string]string{},
		Timestamp:  now.Unix(),
	}
	for name, values := range r.form {
		if key, ok := strings.CutPrefix(name, "payload["); ok {
			e.Payload[strings.TrimSuffix(key, "]")] = values[0]
		}
	}
	switch {
	case e.Name == "":
		return refuse("parameter_missing", "Missing required param: event_name.")
	case len(e.Payload) == 0:
		return refuse("parameter_missing", "Missing required param: payload.")
	case len(e.Name) > 100 || len(e.Identifier) > 100:
		return refuse("", "Invalid string: must be at most 100 characters")
	}
	if e.Identifier == "" {
		e.Identifier = rand.Text()
	}
	if text := r.form.Get("timestamp"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return refuse("parameter_invalid_integer", "Invalid integer: timestamp")
		}
		if at := time.Unix(seconds, 0); at.Before(now.Add(-maxPast)) || at.After(now.Add(maxFuture)) {
			return refuse("", "The timestamp must be within the past 35 days or up to 5 minutes in the future.")
		}
		e.Timestamp = seconds
	}
	return e, nil
}

// begin holds the customer and meter of e; Stripe works on one event at a time.
func (s *Server) begin(e Event) (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, _ := s.meter(e.Name)
	one := series{e.Payload[m.CustomerKey], e.Name}
	if s.busy[one] {
		s.overlaps++
		return nil, false
	}
	s.busy[one] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, one)
	}, true
}

// record takes e unless its identifier was seen within a day, and bills it if it
// can be billed; the answer is the same either way.
func (s *Server) record(e Event) response {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if at, seen := s.identities[e.Identifier]; seen && now.Sub(at) < keyLife {
		res := failure(http.StatusBadRequest, "invalid_request_error", "",
			fmt.Sprintf("An event already exists with identifier %s.", e.Identifier))
		res.header = http.Header{"Stripe-Should-Retry": {"false"}}
		return res
	}
	s.identities[e.Identifier] = now
	s.events = append(s.events, e)

	m, known := s.meter(e.Name)
	customer := e.Payload[m.CustomerKey]
	value, err := strconv.ParseInt(e.Payload[m.ValueKey], 10, 64)
	if known && strings.HasPrefix(customer, "cus_") && err == nil {
		s.totals[series{customer, e.Name}] += value
	} else {
		s.unbilled++
	}
	return object(map[string]any{
		"object": "billing.meter_event", "created": now.Unix(), "event_name": e.Name,
		"identifier": e.Identifier, "livemode": false, "payload": e.Payload, "timestamp": e.Timestamp,
	})
}
