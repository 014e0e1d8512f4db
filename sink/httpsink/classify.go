package httpsink

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inprocess/meter/sink"
)

// operatorDelay is how long a route rests when only a person can help: a wrong secret,
// a wrong URL.
const operatorDelay = time.Minute

// judge says by the evidence what became of each record of r. halt says that other
// requests would fare no better, and then all errors are the same.
func (e exchange) judge(s *Sink, r request) (each []error, halt bool) {
	all := func(err error) []error { return slices.Repeat([]error{err}, max(len(r.ids), 1)) }
	if each := e.results(s, r.ids); each != nil {
		return each, false
	}
	err, halt := e.whole(s, len(r.ids))
	return all(err), halt
}

// results are those of an answer that speaks of exactly these records; else nil.
func (e exchange) results(s *Sink, ids []string) []error {
	if !e.complete || len(ids) == 0 {
		return nil
	}
	var results []resultJSON
	switch e.mediaType() {
	case jsonType:
		if e.status != http.StatusOK || s.cfg.CloudEvents != nil {
			return nil
		}
		answer, err := decodeAnswer(e.body)
		if err != nil {
			return nil
		}
		results = answer.Results
	case problemType:
		problem, err := decodeProblem(e.body)
		if err != nil || problem.Status != e.status || e.status < 400 {
			return nil
		}
		results = problem.Results
	}
	each, err := s.match(results, ids)
	if err != nil {
		return nil
	}
	return each
}

// whole is what an answer that speaks of no single record means for n of them.
func (e exchange) whole(s *Sink, n int) (err error, halt bool) {
	switch {
	case !e.sent:
		return e.wrap(sink.ErrNotApplied, "not sent: "+s.clean(fmt.Sprint(e.err))), true
	case e.status == 0:
		return e.wrap(errDoubt, "no answer: "+s.clean(fmt.Sprint(e.err))), true
	case !e.complete:
		return e.wrap(errDoubt, "the answer broke off: "+s.clean(fmt.Sprint(e.err))), true
	case e.status >= 300 && e.status < 400:
		return e.wrap(errDoubt, "redirects are not followed: Config.URL must be the address itself"), true
	case s.cfg.CloudEvents != nil:
		return e.event(s, n)
	case e.status == http.StatusOK:
		return e.ok(s, n)
	}
	problem, ok := e.problem()
	if !ok {
		return e.wrap(errDoubt, "the answer is no problem document of the protocol: "+s.clean(string(e.body[:min(len(e.body), maxText)]))), true
	}
	said := s.clean(problem.Title + ": " + problem.Detail)
	if problem.Outcome != notApplied {
		return e.wrap(errDoubt, said), true
	}
	return e.refused(said, n)
}

// ok judges a 200 without usable results. Only a batch of no records needs none.
func (e exchange) ok(s *Sink, n int) (error, bool) {
	if answer, err := decodeAnswer(e.body); e.mediaType() == jsonType && err == nil {
		if n == 0 && len(answer.Results) == 0 {
			return nil, false
		}
		return e.wrap(errDoubt, "the answer is not for these records"), true
	}
	return e.wrap(errDoubt, "the answer is none of the protocol: "+s.clean(string(e.body[:min(len(e.body), maxText)]))), true
}

// refused judges a request of which the server itself says that nothing was applied.
func (e exchange) refused(said string, n int) (err error, halt bool) {
	switch e.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		if n > 1 {
			return fmt.Errorf("%w: %w", e.wrap(sink.ErrNotApplied, said), errWhole), false
		}
		return e.wrap(sink.ErrPostponed, said), false
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return e.wrap(sink.ErrNotApplied, said), true
	}
	return sink.RetryAfter(e.wrap(sink.ErrNotApplied, said), operatorDelay), true
}

// event judges the answer of a taker of CloudEvents, who may speak nothing of the
// protocol but status codes.
func (e exchange) event(s *Sink, n int) (err error, halt bool) {
	said := s.clean(string(e.body[:min(len(e.body), maxText)]))
	if problem, ok := e.problem(); ok && problem.Outcome == notApplied {
		return e.refused(s.clean(problem.Title+": "+problem.Detail), n)
	}
	switch {
	case e.html():
		return e.wrap(errDoubt, "the answer is a web page"), true
	case e.status == http.StatusPartialContent || e.status == http.StatusMultiStatus:
	case e.status >= 200 && e.status < 300:
		return nil, false
	case e.status == http.StatusBadRequest, e.status == http.StatusUnprocessableEntity:
		if n == 1 {
			return e.wrap(sink.ErrRejected, said), false
		}
		return fmt.Errorf("%w: %w", e.wrap(sink.ErrNotApplied, said), errWhole), false
	case e.status == http.StatusRequestEntityTooLarge, e.status == http.StatusTooManyRequests:
		return e.refused(said, n)
	case slices.Contains([]int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType,
	}, e.status):
		return e.refused(said, n)
	}
	return e.wrap(errDoubt, said), true
}

// problem is the answer if it is a problem document with a word on the outcome.
func (e exchange) problem() (problemJSON, bool) {
	if e.mediaType() != problemType {
		return problemJSON{}, false
	}
	p, err := decodeProblem(e.body)
	return p, err == nil && p.Status == e.status && e.status >= 400 && p.Outcome != ""
}

func (e exchange) mediaType() string {
	t, _, err := mime.ParseMediaType(e.header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

func (e exchange) html() bool {
	return strings.Contains(e.mediaType(), "html") || strings.HasPrefix(strings.TrimSpace(string(e.body[:min(len(e.body), 64)])), "<")
}

func (e exchange) wrap(outcome error, what string) error {
	err := fmt.Errorf("%w: httpsink: %s", outcome, what)
	if e.status != 0 {
		err = fmt.Errorf("%w (status %d)", err, e.status)
	}
	if errors.Is(outcome, sink.ErrRejected) {
		return err
	}
	return pause(err, e.retryAfter())
}

// retryAfter reads the header in both its forms, seconds and date.
func (e exchange) retryAfter() time.Duration {
	text := e.header.Get("Retry-After")
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return seconds(n)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), maxDelay)
	}
	return 0
}
