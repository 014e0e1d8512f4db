package cryptolenstest

import (
	"crypto/rsa"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server is an [http.Handler] that answers as api.cryptolens.io, for one vendor. Set
// its exported fields before the first request. Create it with [New].
//
// Concurrency: safe.
type Server struct {
	Now           func() time.Time // must not call the Server; nil: time.Now
	NoProcessor   bool             // the vendor has not set up Stripe
	RefusalStatus int              // of HTTP; 0: 200

	mu        sync.Mutex
	endpoints map[string]endpoint // by path in lower case
	counters  counters
	script    []Fault
	down      bool
	tokens    map[string][]string // permissions by text; empty: any token may do all
	products  map[int]map[string]*key
	lastID    int64
	busy      map[*key]bool // whose usage is being recorded
	signer    *rsa.PrivateKey
}

type counters struct {
	requests, fired, overlaps int
	to                        map[string]int // by endpoint
}

// endpoint is a method of the API.
type endpoint struct {
	name       string // such as "key/GetKey"
	permission string
	answer     func(*request) reply
}

// New returns an API with no product, key or token yet. While it has no token it takes
// any, for everything.
func New() *Server {
	s := &Server{
		endpoints: map[string]endpoint{},
		counters:  counters{to: map[string]int{}},
		tokens:    map[string][]string{},
		products:  map[int]map[string]*key{},
		lastID:    5_000_000_000, // beyond 32 bits, as IDs are in the .NET SDK
		busy:      map[*key]bool{},
		signer:    firstKey(),
	}
	s.serve("subscription/RecordUsage", "Subscription", s.recordUsage)
	s.serve("key/GetKey", "GetKey", s.getKey)
	s.serve("key/Activate", "Activate", s.activate)
	s.serve("key/Deactivate", "Deactivate", s.deactivate)
	for _, owner := range []string{"ToKey", "ToMachineCode"} {
		s.serve("data/AddDataObject"+owner, "AddDataObject", s.addDataObject)
		s.serve("data/ListDataObjects"+owner, "ListDataObject", s.listDataObjects)
		s.serve("data/SetIntValue"+owner, "SetIntValue", s.setInt)
		s.serve("data/SetStringValue"+owner, "SetStringValue", s.setString)
		s.serve("data/IncrementIntValue"+owner, "IncrementIntValue", s.step(+1))
		s.serve("data/DecrementIntValue"+owner, "DecrementIntValue", s.step(-1))
	}
	return s
}

func (s *Server) serve(name, permission string, answer func(*request) reply) {
	s.endpoints["/api/"+strings.ToLower(name)] = endpoint{name, permission, answer}
	s.counters.to[name] = 0
}

var slashes = regexp.MustCompile("/+")

// ServeHTTP implements [http.Handler]. While the server is down it breaks the
// connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || s.isDown() {
		panic(http.ErrAbortHandler) // half a request is none
	}
	path := strings.ToLower(strings.TrimRight(slashes.ReplaceAllString(r.URL.Path, "/"), "/"))
	e, known := s.endpoints[path]
	if !known {
		http.NotFound(w, r) // a web page: the API itself was not reached
		return
	}
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	req := &request{Request: r, endpoint: e, params: parse(r, body), now: s.now()}
	f := s.nextFault(e)
	var res reply
	if f.reaches() {
		res = s.work(req, f)
	}
	f.strike(w, r, s.encode(res))
}

// request is what an endpoint gets.
type request struct {
	*http.Request
	endpoint
	params
	now time.Time
	key *key // that the request is about; nil: there is none, or it is not yet looked up
}

// work runs the endpoint, with the delay of the fault before it.
func (s *Server) work(r *request, f Fault) reply {
	s.mu.Lock()
	bad := s.admit(r)
	recording := r.key
	if bad == nil && r.permission == "Subscription" {
		if s.busy[recording] {
			s.counters.overlaps++
		}
		s.busy[recording] = true
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.busy, recording)
		}()
	}
	s.mu.Unlock()
	f.wait(r.Request)
	if bad != nil {
		return *bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.now = s.now()
	return r.answer(r)
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Server) newID() int64 {
	s.lastID++
	return s.lastID
}

// SetDown takes the API away, or brings it back. Through [Server.Client] connections
// are refused meanwhile; a connection that was accepted elsewhere breaks.
func (s *Server) SetDown(down bool) { s.mu.Lock(); defer s.mu.Unlock(); s.down = down }

func (s *Server) isDown() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.down }

// Requests is how many requests came to an endpoint, refused and faulty ones included.
func (s *Server) Requests() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.requests }

// RequestsTo is how many of them came to one endpoint, such as
// "subscription/RecordUsage" or "data/SetIntValueToKey". It panics if there is no such.
func (s *Server) RequestsTo(endpoint string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.counters.to[endpoint]
	if !known {
		panic(fmt.Sprintf("cryptolenstest: no endpoint %q; there are %q", endpoint, slices.Sorted(maps.Keys(s.counters.to))))
	}
	return n
}

// Fired is how many scripted faults have struck.
func (s *Server) Fired() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.fired }

// Overlaps is how many requests recorded usage of a key while another one of the same
// key was still being worked on.
func (s *Server) Overlaps() int { s.mu.Lock(); defer s.mu.Unlock(); return s.counters.overlaps }
