package cache

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/inprocess/meter/license"
)

// Health says what an operator should know: customers are refused, or let through but
// not for long or not after a restart.
//
// It tells of the first question that the Checker fails to answer, until the next
// answer to any. Only if the question was a stranger's and others were answered before,
// it waits for a second one in a row: a Checker may fail at a key that somebody makes
// up.
//
// Blocking: as the Checker's Health.
// Errors: what Validate says, alone; the Checker does not answer, and why; what the
// Checker says if it has a Health() error; the File could not be read at the start,
// until it has been replaced, or not be written.
func (c *Cache) Health() error {
	if c.fault != nil {
		return c.fault
	}
	c.mu.Lock()
	down := c.unanswered.fault(c.circuits.open())
	c.mu.Unlock()
	var checker error
	if h, ok := c.cfg.Checker.(interface{ Health() error }); ok {
		if checker = h.Health(); checker != nil {
			checker = fmt.Errorf("cache: Checker: %w", checker)
		}
	}
	return errors.Join(down, checker, c.file.health())
}

// unanswered are the questions since the last answer. Unlike a circuit it counts those
// that the Checker answers with a panic or nonsense, for their callers are refused, too.
type unanswered struct {
	before   bool // a question was answered
	n        int
	customer bool // one of them was a customer's
	last     error
}

// land is told how every question ended.
func (u *unanswered) land(f *flight) {
	if f.err == nil {
		*u = unanswered{before: true}
		return
	}
	if aboutQuery(f.failed) {
		return // says nothing of the Checker
	}
	u.n++
	u.customer = u.customer || f.customer
	if u.last = f.failed; u.last == nil {
		u.last = f.err
	}
}

// fault is nil if all is well, or nothing that matters is wrong. paused is why no
// question is asked at all.
func (u *unanswered) fault(paused error) error {
	if paused == nil && !u.customer && u.n < 2 && (u.n == 0 || u.before) {
		return nil
	}
	return fmt.Errorf("cache: the Checker does not answer (questions in a row: %d): customers are let through as long as Config.Grace lasts, and nobody else; put right what it says: %w", u.n, u.last)
}

// shortestVeiled is the length of keys that no other text holds by chance.
const shortestVeiled = 8

// veiled is an error whose text held a key, as that of net/http does if the key is in
// the URL.
type veiled struct {
	text  string
	cause error
}

func (e *veiled) Error() string { return e.text }
func (e *veiled) Unwrap() error { return e.cause }

// veil is err without the key that was asked about in its text.
func veil(err error, k license.Key) error {
	key := k.Reveal()
	if err == nil || len(key) < shortestVeiled {
		return err
	}
	before := err.Error()
	text := strings.NewReplacer(key, "[key]", url.QueryEscape(key), "[key]", url.PathEscape(key), "[key]").Replace(before)
	if text == before {
		return err
	}
	return &veiled{text, err}
}
