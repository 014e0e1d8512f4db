package cryptolenstest

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
	Empty                   // 200 without a body, as behind a license server whose upstream failed
	Error500                // 500 with a message and no result
	HTML502                 // a proxy's page
	NoResult                // 200 with a message and no result
	Refused                 // result 1, with the Message of the fault
	Redirect                // 307 to another host
	Hang                    // nothing, until the client leaves
	Garbled                 // 200 whose body is no JSON
	Truncated               // 200 that breaks off in its body
	Huge                    // 200 of more than a client should read
)

// String names the answer for test output.
func (a Answer) String() string {
	names := [...]string{"as usual", "drop", "empty 200", "500", "html 502", "no result", "refused", "redirect", "hang",
		"garbled 200", "truncated 200", "huge 200"}
	return names[a]
}

// Fault is what shall happen to one request. The zero value is no fault.
//
// Concurrency: a plain value.
type Fault struct {
	Answer  Answer
	Applied bool          // the request is worked on first, as if nothing were wrong
	Delay   time.Duration // passes first, while the API works on the request
	Message string        // what the API says: of Refused, Error500 and NoResult
	On      string        // part of the endpoint, such as "RecordUsage" or "key/"; "": any
}

// String names the fault for test output.
func (f Fault) String() string {
	text := f.Answer.String()
	if f.Message != "" {
		text += " " + strconv.Quote(f.Message)
	}
	if f.Applied {
		text = fmt.Sprintf("%s after applying", text)
	}
	return text
}

// Script appends faults. Each strikes one request, in the order of arrival: the next
// one whose endpoint it is [Fault.On].
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// nextFault counts a request and takes its fault from the script.
func (s *Server) nextFault(e endpoint) (f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.requests++
	s.counters.to[e.name]++
	at := slices.IndexFunc(s.script, func(f Fault) bool { return strings.Contains(e.name, f.On) })
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

// reaches reports whether the API itself gets to see the request.
func (f Fault) reaches() bool { return f.Applied || f.Answer == AsUsual }

// strike answers: with res, or with what the fault makes of it.
func (f Fault) strike(w http.ResponseWriter, r *http.Request, res encoded) {
	if !f.reaches() {
		f.wait(r)
	}
	fake := encoded{status: http.StatusOK, contentType: "application/json; charset=utf-8"}
	switch f.Answer {
	case AsUsual:
		fake = res
	case Drop:
		panic(http.ErrAbortHandler)
	case Empty:
	case Error500:
		fake.status, fake.body = http.StatusInternalServerError, encodeJSON(object{"message": f.Message})
	case HTML502:
		fake = encoded{http.StatusBadGateway, "text/html", []byte("<html><body><h1>502 Bad Gateway</h1></body></html>")}
	case NoResult:
		fake.body = encodeJSON(object{"message": f.Message})
	case Refused:
		fake.body = encodeJSON(object{"result": 1, "message": f.Message})
	case Redirect:
		http.Redirect(w, r, "http://elsewhere.invalid"+r.URL.Path, http.StatusTemporaryRedirect)
		return
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Garbled:
		fake.body = []byte("]")
	case Truncated:
		w.Header().Set("Content-Length", strconv.Itoa(len(res.body)+100))
		res.write(w)
		_ = http.NewResponseController(w).Flush() // else the abort takes the status back, too
		panic(http.ErrAbortHandler)
	case Huge:
		fake.body = append(slices.Clone(res.body), strings.Repeat(" ", 2<<20)...)
	}
	fake.write(w)
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
