package stripetest

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Server is an [http.Handler] that answers as api.stripe.com, for one account in one
// mode. Set its exported fields before the first request. Create it with [New].
//
// Concurrency: safe.
type Server struct {
	Key         string           // the only key it takes; "": any
	Now         func() time.Time // must not call the Server; nil: time.Now
	Live        bool             // what livemode says; Stripe goes by the key, this does not
	AnyCustomer bool             // every "cus_…" is a customer, added or not

	Grace      time.Duration // for so long a new period's items take, for a sum, usage that is at most so old; 0: none
	Rate       int           // most requests within one second of the clock; 0: any
	Samples    int           // most events that an error report names per code; 0: 1
	SearchLag  time.Duration // subscriptions are found by what they were so long ago; 0: as they are
	SummaryLag time.Duration // event summaries show what was received so long ago; 0: everything

	mux *http.ServeMux

	mu       sync.Mutex
	counters counters
	script   []Fault
	keys     map[string]*stored
	busy     map[string]bool // what is being worked on
	second   int64           // that Rate counts
	inSecond int
	forbid   []string
	lastID   int

	customers     table[*customer]
	products      table[*product]
	prices        table[*price]
	subscriptions table[*subscription]
	items         table[*item]
	meters        table[*meter]
	records       []UsageRecord
	entitlements  []Entitlement

	events      []*event
	bySeries    map[series][]*event
	identifiers map[string]*event
	rejects     []reject // not yet reported
	reports     []report
}

type counters struct {
	requests, fired, overlaps, throttled int
	to                                   map[string]int // by endpoint
}

// New returns a Stripe that has these meters, and nothing else yet.
func New(meters ...Meter) *Server {
	s := &Server{
		mux:         http.NewServeMux(),
		counters:    counters{to: map[string]int{}},
		keys:        map[string]*stored{},
		busy:        map[string]bool{},
		bySeries:    map[series][]*event{},
		identifiers: map[string]*event{},
	}
	s.routes()
	for _, m := range meters {
		s.AddMeter(m)
	}
	return s
}

func (s *Server) routes() {
	s.mux.HandleFunc("/", s.serve(func(r *request) response {
		return failure(http.StatusNotFound, "invalid_request_error", "", "",
			fmt.Sprintf("Unrecognized request URL (%s: %s).", r.Method, r.URL.Path))
	}))
	s.read("GET /v1/customers/{id}", s.getCustomer)
	s.write("POST /v1/customers", s.createCustomer)
	s.write("DELETE /v1/customers/{id}", s.deleteCustomer)
	s.read("GET /v1/products/{id}", s.getProduct)
	s.write("POST /v1/products", s.createProduct)
	s.read("GET /v1/prices", s.listPrices)
	s.read("GET /v1/prices/{id}", s.getPrice)
	s.write("POST /v1/prices", s.createPrice)
	s.read("GET /v1/subscriptions", s.listSubscriptions)
	s.read("GET /v1/subscriptions/search", s.searchSubscriptions)
	s.read("GET /v1/subscriptions/{id}", s.getSubscription)
	s.write("POST /v1/subscriptions", s.createSubscription)
	s.write("DELETE /v1/subscriptions/{id}", s.cancelSubscription)
	s.read("GET /v1/subscription_items", s.listItems)
	s.read("GET /v1/subscription_items/{id}", s.getItem)
	s.write("POST /v1/subscription_items/{id}/usage_records", s.createUsageRecord)
	s.read("GET /v1/subscription_items/{id}/usage_record_summaries", s.listUsageSummaries)
	s.read("GET /v1/entitlements/active_entitlements", s.listEntitlements)
	s.read("GET /v1/entitlements/active_entitlements/{id}", s.getEntitlement)
	s.read("GET /v1/billing/meters", s.listMeters)
	s.read("GET /v1/billing/meters/{id}", s.getMeter)
	s.write("POST /v1/billing/meters", s.createMeter)
	s.write("POST /v1/billing/meters/{id}/deactivate", s.setMeterStatus("inactive"))
	s.write("POST /v1/billing/meters/{id}/reactivate", s.setMeterStatus("active"))
	s.read("GET /v1/billing/meters/{id}/event_summaries", s.listEventSummaries)
	s.write("POST /v1/billing/meter_events", s.createEvent)
	s.write("POST /v1/billing/meter_event_adjustments", s.createAdjustment)
	s.read("GET /v2/core/events/{id}", s.getReport)
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// request is what a handler gets: the whole request, read before any fault.
type request struct {
	*http.Request
	*params
	fault Fault
	lock  string // what the change must have to itself; "": nothing
}

// read registers a request that changes nothing.
func (s *Server) read(endpoint string, answer func(*request) response) {
	s.counters.to[endpoint] = 0
	s.mux.HandleFunc(endpoint, s.serve(func(r *request) response {
		r.fault.wait(r.Request)
		if r.fault.Answer == Error500 {
			return unknownError()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		res := answer(r)
		if r.bad != nil {
			return *r.bad
		}
		return res.expanded(s, r)
	}))
}

// write registers a request that changes something. check, which may refuse, sees
// the request before the idempotency layer; the change that it returns runs behind
// it, and what it answers is stored.
func (s *Server) write(endpoint string, check func(*request) (change func() response)) {
	s.counters.to[endpoint] = 0
	s.mux.HandleFunc(endpoint, s.serve(func(r *request) response {
		s.mu.Lock()
		change := check(r)
		s.mu.Unlock()
		if r.bad != nil {
			return *r.bad
		}
		return s.once(r, func() response { return s.work(r, change) })
	}))
}

// work runs change, alone with what it locks, and with what the fault does to it.
func (s *Server) work(r *request, change func() response) response {
	if !s.hold(r.lock) {
		return lockTimeout(r)
	}
	defer s.release(r.lock)
	r.fault.wait(r.Request)
	failed := r.fault.Answer == Error500
	if failed && !r.fault.Applied {
		return unknownError()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if res := change().expanded(s, r); !failed {
		return res
	}
	return unknownError()
}

func (s *Server) hold(lock string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lock == "" {
		return true
	}
	if s.busy[lock] {
		s.counters.overlaps++
		return false
	}
	s.busy[lock] = true
	return true
}

func (s *Server) release(lock string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, lock)
}

// serve puts answer behind everything that all requests share: counting, faults, and
// the checks of limits and keys.
func (s *Server) serve(answer func(*request) response) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // half a request is none
		}
		req := &request{Request: r, fault: s.nextFault(r)}
		req.params, err = parseForm(r, body)
		res := response{status: http.StatusOK}
		switch {
		case err != nil:
			res = failure(http.StatusBadRequest, "invalid_request_error", "", "", "The request's parameters can't be read.")
		case req.fault.reaches():
			res = s.admit(req, answer)
		}
		s.stamp(w)
		req.fault.strike(w, r, res)
	}
}

func parseForm(r *http.Request, body []byte) (*params, error) {
	form := r.URL.Query()
	if r.Method != http.MethodGet {
		var err error
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, err
		}
	}
	return &params{form: form}, nil
}

// stamp sets what is on every answer. The date is the server's, which is how a
// client may notice that its own clock is wrong.
func (s *Server) stamp(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	w.Header().Set("Request-Id", s.newID("req"))
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// newID makes up an ID, which no Stripe would.
func (s *Server) newID(prefix string) string {
	s.lastID++
	return fmt.Sprintf("%s_fake%d", prefix, s.lastID)
}

// Requests is how many requests came over the wire, refused ones included.
func (s *Server) Requests() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.requests }

// RequestsTo is how many of them came to an endpoint, such as
// "POST /v1/subscription_items/{id}/usage_records". It panics if there is no such.
func (s *Server) RequestsTo(endpoint string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustServe(endpoint)
	return s.counters.to[endpoint]
}

// mustServe panics if there is no such endpoint, for that is a mistake in a test.
func (s *Server) mustServe(endpoint string) {
	if _, known := s.counters.to[endpoint]; !known {
		panic(fmt.Sprintf("stripetest: no endpoint %q; there are %q", endpoint, slices.Sorted(maps.Keys(s.counters.to))))
	}
}

// Fired is how many scripted faults have struck.
func (s *Server) Fired() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.fired }

// Throttled is how many requests [Server.Rate] has refused.
func (s *Server) Throttled() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.throttled }

// Overlaps is how many events of one customer and meter, or usage records of one
// item, came while another one of the same was still being worked on. Stripe
// allows none.
func (s *Server) Overlaps() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.overlaps }
