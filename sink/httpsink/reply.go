package httpsink

import (
	"encoding/json"
	"net/http"
	"time"
)

// answer says what became of each record. Takers of CloudEvents know statuses only, so
// to their senders anything but success is an error with the results in it.
func (h *Handler) answer(w http.ResponseWriter, results []resultJSON, events bool) {
	said := map[string]int{}
	delay := time.Duration(0)
	for _, r := range results {
		said[r.Status]++
		delay = max(delay, seconds(r.RetryAfter))
	}
	n := len(results)
	p := problemJSON{Results: results, Reason: "store"}
	switch {
	case n > 0 && said[notApplied] == n:
		p.Status, p.Outcome, p.Detail, p.Results = http.StatusServiceUnavailable, notApplied, "The store did not take the records now.", nil
	case n > 0 && said[inDoubt] == n:
		p.Status, p.Outcome, p.Detail, p.Results = http.StatusInternalServerError, inDoubt, "The store does not know whether it took the records.", nil
	case !events:
		a := answerJSON{Results: results}
		if n == 0 {
			kept := int64(h.store.limits.DedupeWindow / time.Second)
			a.DedupeSeconds = &kept
		}
		writeJSON(w, jsonType, http.StatusOK, a)
		return
	case said[delivered] == n:
		w.WriteHeader(http.StatusNoContent)
		return
	case said[inDoubt] > 0:
		p.Status, p.Outcome, p.Detail = http.StatusInternalServerError, inDoubt, "Of some events nobody knows whether they were taken: see results."
	case said[notApplied]+said[postponed] > 0:
		p.Status, p.Outcome, p.Detail = http.StatusServiceUnavailable, inDoubt, "Some events were not taken now: see results."
	default:
		p.Status, p.Outcome, p.Detail = http.StatusUnprocessableEntity, inDoubt, "Some events were rejected: see results."
	}
	if delay == 0 {
		delay = busyDelay
	}
	writeProblem(w, p, delay)
}

func writeProblem(w http.ResponseWriter, p problemJSON, delay time.Duration) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Status == http.StatusServiceUnavailable {
		retryAfter(w.Header(), delay)
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", signatureHeader)
	}
	writeJSON(w, problemType, p.Status, p)
}

func writeJSON(w http.ResponseWriter, kind string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // of plain values: can't be
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a sender that is gone will ask again
}
