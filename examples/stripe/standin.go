package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
)

// standIn knows just as much of Stripe as this example needs: one billing meter,
// and that an identifier is taken once. Its first reply to an event gets lost.
type standIn struct {
	*httptest.Server
	event string

	mu       sync.Mutex
	requests int
	seen     map[string]bool
	billed   map[string]int64 // by customer
}

func newStandIn(event string) *standIn {
	s := &standIn{event: event, seen: map[string]bool{}, billed: map[string]int64{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/billing/meters", s.meters)
	mux.HandleFunc("POST /v1/billing/meter_events", s.record)
	s.Server = httptest.NewServer(mux)
	return s
}

func (s *standIn) meters(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintf(w, `{"object": "list", "data": [{"id": "mtr_1", "event_name": %q, "status": "active",
		"default_aggregation": {"formula": "sum"},
		"customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
		"value_settings": {"event_payload_key": "value"}}]}`, s.event)
}

func (s *standIn) record(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	identifier, customer := r.FormValue("identifier"), r.FormValue("payload[stripe_customer_id]")
	value, err := strconv.ParseInt(r.FormValue("payload[value]"), 10, 64)
	switch {
	case err != nil || r.FormValue("event_name") != s.event:
		refuse(w, "no such meter, or no value")
	case s.seen[identifier]:
		fmt.Printf("  request %d: identifier seen, refused as Stripe does: nobody pays twice\n", s.requests)
		refuse(w, "An event already exists with identifier "+identifier+".")
	default:
		fmt.Printf("  request %d: %s for %s recorded, and the reply lost\n", s.requests, r.FormValue("payload[value]"), customer)
		s.seen[identifier] = true
		s.billed[customer] += value
		panic(http.ErrAbortHandler) // breaks the connection
	}
}

func refuse(w http.ResponseWriter, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"error": {"type": "invalid_request_error", "message": %q}}`, message)
}

func (s *standIn) verify(customer string, want int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("The stand-in billed %s: %d\n", customer, s.billed[customer])
	if s.billed[customer] != want || s.requests < 2 {
		return fmt.Errorf("it billed %d in %d requests, want %d in at least 2", s.billed[customer], s.requests, want)
	}
	return nil
}
