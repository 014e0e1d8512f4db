package delivery

import (
	"fmt"
	"time"
)

// routeError says what is wrong with a route. Its text is made once, guarded
// against errors whose own methods panic.
type routeError struct {
	text  string
	cause error
}

func (e *routeError) Error() string { return e.text }
func (e *routeError) Unwrap() error { return e.cause }

// ledgerError is trouble with the ledger and not with the sink.
type ledgerError struct{ err error }

func (e *ledgerError) Error() string { return "ledger: " + e.err.Error() }
func (e *ledgerError) Unwrap() error { return e.err }

// wrong is an error of this route; cause may be nil.
func (r *route) wrong(message string, cause error) error {
	message = fmt.Sprintf("meter: route %q: %s", r.name, message)
	if cause != nil {
		message += ": " + text(cause)
	}
	return &routeError{message, cause}
}

// health is what is wrong with the route now.
func (r *route) health() (errs []error) {
	now := time.Now()
	r.mu.Lock()
	t := r.trouble
	var hung []string
	for a := range r.running {
		if now.After(a.deadline) {
			hung = append(hung, a.describe(now))
		}
	}
	r.mu.Unlock()

	if t.tries > 0 {
		next := "trying now"
		if t.resume.After(now) {
			next = "next at " + stamp(t.resume)
		}
		errs = append(errs, r.wrong(fmt.Sprintf("delivery fails since %s (failures: %d, %s)", stamp(t.since), t.tries, next), t.err))
	}
	for _, message := range hung {
		errs = append(errs, r.wrong(message, nil))
	}
	return append(errs, r.prep.health(now)...)
}

// exitGrace is what a dispatcher without attempts gets to leave the ledger when
// the time to stop is already up.
const exitGrace = 100 * time.Millisecond

// unfinished says what Stop leaves running; nil if nothing.
func (r *route) unfinished() error {
	r.mu.Lock()
	attempts, records := len(r.running), 0
	for a := range r.running {
		records += len(a.batch.Records)
	}
	r.mu.Unlock()
	switch {
	case attempts > 0:
		return r.wrong(fmt.Sprintf("%s of %s still running", many(attempts, "delivery", "deliveries"), many(records, "record", "records")), nil)
	case r.prep.busy():
		return r.wrong("the sink is still being asked about features", nil)
	}
	select {
	case <-r.exited:
		return nil
	case <-time.After(exitGrace):
		return r.wrong("still taking records", nil)
	}
}

// many is n with the word for so many.
func many(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
