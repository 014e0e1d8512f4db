package httpsink

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/inprocess/meter/sink"
)

// What a server says of a record, and of a request in a problem document.
const (
	delivered  = "delivered"
	rejected   = "rejected"
	notApplied = "not-applied"
	postponed  = "postponed"
	inDoubt    = "in-doubt"
)

// answerJSON is the body of a 200.
type answerJSON struct {
	Results       []resultJSON `json:"results"`
	DedupeSeconds *int64       `json:"dedupe_seconds,omitempty"`
}

// resultJSON speaks of one record, by its ID.
type resultJSON struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	Reason     string `json:"reason,omitempty"`
	RetryAfter int64  `json:"retry_after,omitempty"` // seconds
}

const problemType = "application/problem+json"

// problemJSON is a problem document (RFC 9457) with members of the protocol's own.
type problemJSON struct {
	Type    string       `json:"type"`
	Title   string       `json:"title"`
	Status  int          `json:"status"`
	Detail  string       `json:"detail,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	Outcome string       `json:"outcome"`
	Results []resultJSON `json:"results,omitempty"`
}

func decodeAnswer(body []byte) (answerJSON, error) {
	var a struct {
		Results       *[]resultJSON `json:"results"`
		DedupeSeconds *int64        `json:"dedupe_seconds"`
	}
	if err := decode(body, &a); err != nil {
		return answerJSON{}, err
	}
	if a.Results == nil {
		return answerJSON{}, errors.New("it has no results")
	}
	return answerJSON{*a.Results, a.DedupeSeconds}, nil
}

func decodeProblem(body []byte) (problemJSON, error) {
	var p problemJSON
	err := decode(body, &p)
	return p, err
}

// match returns the error that each result means for the record of its ID. Its own
// error says that the results are not those of these records.
func (s *Sink) match(results []resultJSON, ids []string) ([]error, error) {
	if len(results) != len(ids) {
		return nil, fmt.Errorf("it has %d results for %d records", len(results), len(ids))
	}
	byID := make(map[string]resultJSON, len(results))
	for _, r := range results {
		byID[r.ID] = r
	}
	errs := make([]error, len(ids))
	for i, id := range ids {
		r, ok := byID[id] // as many results as records: one that is double leaves another missing
		if !ok {
			return nil, fmt.Errorf("it has no result for record %s", id)
		}
		errs[i] = r.err(s.clean)
	}
	return errs, nil
}

// maxDelay bounds what a server may ask for.
const maxDelay = time.Hour

var errDoubt = errors.New("in doubt")

func (r resultJSON) err(clean func(string) string) error {
	var outcome error
	switch r.Status {
	case delivered:
		return nil
	case rejected:
		outcome = sink.ErrRejected
	case notApplied:
		outcome = sink.ErrNotApplied
	case postponed:
		outcome = sink.ErrPostponed
	case inDoubt:
		outcome = errDoubt
	default: // of a later version
		return fmt.Errorf("%w: httpsink: record %s: the server says %q, which is unknown", errDoubt, r.ID, clean(r.Status))
	}
	err := fmt.Errorf("%w: httpsink: record %s: the server says %q", outcome, r.ID, clean(r.Reason))
	return pause(err, seconds(r.RetryAfter))
}

// seconds is what a server asks for, within bounds.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(maxDelay/time.Second))) * time.Second
}

// pause adds the wish to wait for d to err, if there is one.
func pause(err error, d time.Duration) error {
	if d <= 0 {
		return err
	}
	return sink.RetryAfter(err, d)
}

// clean makes a foreign text fit for an error: without secrets, on one line, short.
func (s *Sink) clean(text string) string {
	for _, secret := range []string{s.cfg.Secret, s.cfg.Token} {
		if secret != "" { // while the text is whole: half a secret is one, too
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return cut(text)
}

const maxText = 300

// cut puts a foreign text on one line of at most maxText bytes.
func cut(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
