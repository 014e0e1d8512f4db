package stripetest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Answer is what the client sees of a faulty request.
//
// Concurrency: a plain value.
type Answer uint8

const (
	AsUsual   Answer = iota // the real answer
	Drop                    // the connection breaks without a byte
	Error500                // Stripe's own 500, stored under the idempotency key
	HTML502                 // a proxy's page
	Throttled               // 429, refused before anything else
	Truncated               // a 200 that breaks off in its body
	Redirect                // 307 to the same path
	Hang                    // nothing, until the client leaves
	Garbled                 // a 200 whose body is no JSON
	Locked                  // 429 without a reason: something else has the object
)

// String names the answer for test output.
func (a Answer) String() string {
	names := [...]string{"as usual", "drop", "500", "html 502", "429", "truncated 200", "redirect", "hang", "garbled 200",
		"lock timeout"}
	return names[a]
}

// Fault is what shall happen to one request. The zero value is no fault.
//
// Concurrency: a plain value.
type Fault struct {
	Answer     Answer
	Applied    bool          // the request is worked on first, and its outcome stored
	Delay      time.Duration // passes first, while Stripe works on the request
	RetryAfter int           // seconds, as a header; 0: none
	On         string        // part of the endpoint, such as "usage_records" or "GET /v1/"; "": any
}

// String names the fault for test output.
func (f Fault) String() string {
	if f.Applied {
		return fmt.Sprintf("%v after applying", f.Answer)
	}
	return f.Answer.String()
}

// Script appends faults. Each strikes one request, in the order of arrival: the next
// one whose endpoint it is [Fault.On].
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// nextFault counts a request and takes its fault from the script.
func (s *Server) nextFault(r *http.Request) (f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.requests++
	s.counters.to[r.Pattern]++
	at := slices.IndexFunc(s.script, func(f Fault) bool { return strings.Contains(r.Pattern, f.On) })
	if at < 0 {
		return f
	}
	f = s.script[at]
	s.script = slices.Delete(s.script, at, at+1)
	if f != (Fault{On: f.On}) {
		s.counters.fired++
	}
	return f
}

// reaches reports whether Stripe itself gets to see the request.
func (f Fault) reaches() bool {
	return f.Applied || f.Answer == AsUsual || f.Answer == Error500
}

// strike answers: with res, or with what the fault makes of it.
func (f Fault) strike(w http.ResponseWriter, r *http.Request, res response) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	switch f.Answer {
	case AsUsual, Error500: // the 500 comes from below, where it is stored
		write(w, res)
	case Drop:
		panic(http.ErrAbortHandler)
	case HTML502:
		write(w, response{
			status: http.StatusBadGateway,
			header: http.Header{"Content-Type": {"text/html"}},
			body:   []byte("<html><body><h1>502 Bad Gateway</h1></body></html>"),
		})
	case Throttled:
		write(w, throttled("global-rate"))
	case Locked:
		write(w, lockTimeout(&request{}))
	case Truncated:
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)+100))
		write(w, res)
		_ = http.NewResponseController(w).Flush() // else the abort takes the status back, too
		panic(http.ErrAbortHandler)
	case Redirect:
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Garbled:
		write(w, response{status: http.StatusOK, body: []byte("]")})
	}
}

// wait passes the fault's delay, or less if the client leaves.
func (f Fault) wait(r *http.Request) {
	if f.Delay == 0 {
		return
	}
	t := time.NewTimer(f.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}
