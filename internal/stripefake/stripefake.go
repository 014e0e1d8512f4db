// Package stripefake is a small Stripe with a memory, for tests about money: it
// honors idempotency keys and identifiers as Stripe does, adds up what it would
// bill, and fails on command before or after it has recorded an event.
package stripefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Server is an [http.Handler] that answers as api.stripe.com. Set its exported
// fields before the first request.
//
// Concurrency: safe.
type Server struct {
	Key string           // the only key it takes; "": any
	Now func() time.Time // nil: time.Now

	mux *http.ServeMux

	mu         sync.Mutex
	requests   int
	fired      int
	overlaps   int
	unbilled   int
	script     []Fault
	keys       map[string]*stored
	meters     []Meter
	identities map[string]time.Time // identifiers, and when they came
	totals     map[series]int64
	events     []Event
	busy       map[series]bool
}

type series struct{ customer, event string }

// New returns a Stripe that has these meters.
func New(meters ...Meter) *Server {
	s := &Server{
		mux:        http.NewServeMux(),
		keys:       map[string]*stored{},
		identities: map[string]time.Time{},
		totals:     map[series]int64{},
		busy:       map[series]bool{},
	}
	for i, m := range meters {
		s.meters = append(s.meters, m.withDefaults(i))
	}
	s.handle("GET /v1/billing/meters", s.listMeters)
	s.handle("POST /v1/billing/meter_events", s.createEvent)
	return s
}

// Requests is how many requests came over the wire, refused ones included.
func (s *Server) Requests() int { s.mu.Lock(); defer s.mu.Unlock(); return s.requests }

// Fired is how many scripted faults have struck.
func (s *Server) Fired() int { s.mu.Lock(); defer s.mu.Unlock(); return s.fired }

// Overlaps is how many events of one customer and meter came while another one
// of the same was still being worked on. Stripe allows none.
func (s *Server) Overlaps() int { s.mu.Lock(); defer s.mu.Unlock(); return s.overlaps }

// request is what a handler gets: the whole request, read before any fault.
type request struct {
	*http.Request
	form  url.Values // query or body
	fault Fault
}

// response is what a handler answers, kept as bytes so that it can be replayed.
type response struct {
	status int
	header http.Header
	body   []byte
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// handle registers answer behind everything that all requests share: counting,
// faults, and the check of the key.
func (s *Server) handle(pattern string, answer func(*request) response) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // half a request is none
		}
		req := &request{Request: r, fault: s.nextFault()}
		req.form, err = parseForm(r, body)
		if err != nil {
			write(w, failure(http.StatusBadRequest, "invalid_request_error", "", "The request's parameters can't be read."))
			return
		}
		res := response{status: http.StatusOK}
		if req.fault.reaches() {
			res = s.checked(req, answer)
		}
		req.fault.strike(w, r, res)
	})
}

func parseForm(r *http.Request, body []byte) (url.Values, error) {
	if r.Method == http.MethodGet {
		return r.URL.Query(), nil
	}
	return url.ParseQuery(string(body))
}

func (s *Server) checked(r *request, answer func(*request) response) response {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || s.Key != "" && given != s.Key {
		// Stripe masks the key; this one quotes it whole, as a careless proxy might.
		return failure(http.StatusUnauthorized, "invalid_request_error", "", "Invalid API Key provided: "+given)
	}
	return answer(r)
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// object answers 200 with v.
func object(v any) response {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("stripefake: %v", err))
	}
	return response{status: http.StatusOK, body: body}
}

// failure answers with Stripe's error object; code may be "".
func failure(status int, kind, code, message string) response {
	e := map[string]string{"type": kind, "message": message}
	if code != "" {
		e["code"] = code
	}
	res := object(map[string]any{"error": e})
	res.status = status
	return res
}

func write(w http.ResponseWriter, res response) {
	for name, values := range res.header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Request-Id", "req_fake")
	w.WriteHeader(res.status)
	_, _ = io.Copy(w, bytes.NewReader(res.body)) // a client that left is no concern of the fake
}
