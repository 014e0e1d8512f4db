package meter

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/license"
)

// problem is the body of RFC 9457, with members of our own.
type problem struct {
	Type    string         `json:"type"`
	Title   string         `json:"title"`
	Status  int            `json:"status"`
	Detail  string         `json:"detail,omitempty"`
	Reason  license.Reason `json:"reason,omitempty"`
	Feature string         `json:"feature,omitempty"`
	Limit   *int64         `json:"limit,omitempty"` // the rest only if a quota is in the way
	Used    *int64         `json:"used,omitempty"`
	Held    int64          `json:"held,omitempty"`
	Drawn   *int64         `json:"drawn,omitempty"` // prepaid units, instead of a limit
	Reset   *time.Time     `json:"reset,omitempty"`
}

// reasonDocs is where a reason is documented: the type of its problem.
const reasonDocs = "https://pkg.go.dev/github.com/inprocess/meter/license#"

var reasons = map[license.Reason]struct{ name, detail string }{
	license.NoKey:       {"NoKey", "The request does not say, or not in a valid way, who is calling."},
	license.NotFound:    {"NotFound", "The license is not known."},
	license.Expired:     {"Expired", "The license has expired."},
	license.Blocked:     {"Blocked", "The license is blocked."},
	license.NotEntitled: {"NotEntitled", "The license does not include this feature."},
	license.Unpaid:      {"Unpaid", "A payment is due."},
	license.OverQuota:   {"OverQuota", "The quota of this period is used up."},
	license.TooFast:     {"TooFast", "Too many requests; try again later."},
	license.Unavailable: {"Unavailable", "The license can't be checked right now; try again later."},
}

// cannotCount is the detail when it is not the license that is in the way.
const cannotCount = "The use can't be counted right now; try again later."

// quotaTooSmall is the detail when something is left.
const quotaTooSmall = "What is left of the quota of this period is too little for this request."

// WriteProblem answers a request with err as RFC 9457, application/problem+json: a
// *RefusedError with its status and reason, 400 for an Idempotency-Key that is none
// (see [IdempotencyKey]), 500 without details for any other error. 401 carries
// WWW-Authenticate; 429 carries Retry-After in whole seconds, rounded up, at least 1,
// and 503 does if the time is known. Where a quota of this process is in the way, the
// problem has the members limit and used, in units, held, what running calls have
// reserved, and reset, the end of the period; where what was bought is used up, it has drawn
// instead of limit and reset (see [Total]). Neither keys nor the
// error's cause are shown. Call it before anything else was written.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	h := w.Header()
	p := problem{Type: "about:blank", Status: http.StatusInternalServerError}
	refused, ok := errors.AsType[*RefusedError](err)
	if refused != nil {
		p = describe(refused)
		switch p.Status {
		case http.StatusUnauthorized:
			if h.Get("WWW-Authenticate") == "" {
				h.Set("WWW-Authenticate", refused.authenticate())
			}
		case http.StatusTooManyRequests:
			h.Set("Retry-After", strconv.FormatInt(wholeSeconds(refused.RetryAfter), 10))
		case http.StatusServiceUnavailable:
			h.Del("Retry-After")
			if refused.RetryAfter > 0 { // else clients wait as they do in any outage
				h.Set("Retry-After", strconv.FormatInt(wholeSeconds(refused.RetryAfter), 10))
			}
		}
	}
	if !ok { // a nil one has no methods
		if bad, ok := errors.AsType[*badIdempotencyKey](err); ok {
			p.Status, p.Detail = http.StatusBadRequest, "The "+idempotencyHeader+" field "+bad.why+"."
		}
	}
	p.Title = http.StatusText(p.Status)
	body, _ := json.Marshal(p) // such plain values can't fail
	for _, stale := range []string{"Content-Encoding", "Content-Length", "Etag", "Last-Modified"} {
		h.Del(stale) // of the answer that the handler had in mind
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
}

func describe(e *RefusedError) problem {
	known, ok := reasons[e.Reason]
	if !ok {
		known.name, known.detail = "Reason", "The use of this feature was refused."
	}
	if e.Reason == license.Unavailable && (errors.Is(e.Cause, ErrFull) || errors.Is(e.Cause, ErrClosed)) {
		known.detail = cannotCount
	}
	p := problem{
		Type:    reasonDocs + known.name,
		Status:  e.Status(),
		Detail:  known.detail,
		Reason:  e.Reason,
		Feature: e.Feature,
	}
	if t := e.Total; t != nil {
		used := (&ledger.Standing{Counted: t.Quantity, Used: t.Used}).Taken()
		p.Used, p.Held = &used, t.Held
		if p.Limit = &t.Limit; t.Limit < 0 {
			p.Limit, p.Drawn = nil, &t.Drawn
		}
		if !t.End.IsZero() {
			p.Reset = &t.End
		}
		if p.Detail = quotaTooSmall; t.Left() == 0 {
			p.Detail = known.detail
		}
	}
	if detail := prepaidDetail(e); detail != "" {
		p.Detail = detail
	}
	return p
}

// authenticate is the challenge that a 401 must carry.
func (e *RefusedError) authenticate() string {
	if e.challenge != "" {
		return e.challenge
	}
	return fmt.Sprintf("ApiKey realm=%q", realm)
}
