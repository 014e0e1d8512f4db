package main

import (
	"fmt"
	"net/http/httptest"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// standIn is a Stripe within this process, as tests use it. Its first reply to an
// event gets lost, after the event was recorded.
type standIn struct {
	*stripetest.Server
	http  *httptest.Server
	event string
}

func newStandIn(event, customer string) *standIn {
	s := &standIn{Server: stripetest.New(stripetest.Meter{EventName: event}), event: event}
	s.AddCustomer(stripetest.Customer{ID: customer})
	s.Script(stripetest.Fault{On: "meter_events", Answer: stripetest.Drop, Applied: true})
	s.http = httptest.NewServer(s)
	return s
}

func (s *standIn) verify(customer string, want int64) error {
	requests, billed := s.RequestsTo("POST /v1/billing/meter_events"), s.Total(customer, s.event)
	fmt.Printf("The event was sent %d times, for the first reply got lost. The stand-in billed %s: %d\n", requests, customer, billed)
	if billed != want || requests < 2 || s.Unbilled() > 0 {
		return fmt.Errorf("it billed %d in %d requests, want %d in at least 2", billed, requests, want)
	}
	return nil
}
