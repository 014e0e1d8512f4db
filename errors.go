package meter

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/internal/prepaid"
	"github.com/inprocess/meter/license"
)

// From Add, Set, AddEvent and Commit an error means: not counted. The one exception is
// ErrUnsynced.
var (
	// ErrClosed: the meter was shut down.
	ErrClosed = ledger.ErrClosed
	// ErrLocked: another process owns the directory.
	ErrLocked = ledger.ErrLocked
	// ErrFormat: the directory was written by a version that this one can't read.
	ErrFormat = ledger.ErrFormat
	// ErrFull: no room on disk, and Config.RefuseWhenFull.
	ErrFull = ledger.ErrFull
	// ErrUnsynced: counted, but not yet safe from power loss, nor from a kill while Health
	// says that counting goes on in memory. Don't repeat, unless it is an event: that is
	// counted once.
	ErrUnsynced = ledger.ErrUnsynced
	// ErrName: a feature, subject, dimension or event ID is empty, too long or has
	// characters that don't belong.
	ErrName = ledger.ErrName
	// ErrQuantity: negative, or more than a window can hold (2^53-1).
	ErrQuantity = ledger.ErrQuantity
	// ErrKind: Add is for Sum, Set is for Max and Last.
	ErrKind = ledger.ErrKind
	// ErrTime: an event's time is in the future, or longer ago than a sink takes.
	ErrTime = ledger.ErrTime
	// ErrConflict: an event with this ID was counted, with another quantity or subject.
	ErrConflict = ledger.ErrConflict
	// ErrNotInDoubt: there are no such prepaid units in doubt.
	ErrNotInDoubt = prepaid.ErrUnknown
	// ErrNoCaller: nobody to bill. It comes as the cause of a *RefusedError.
	ErrNoCaller = errors.New("meter: nobody to bill")
	// ErrNotMetered: there is no call around, or it has ended.
	ErrNotMetered = errors.New("meter: not inside a metered call")
)

// RefusedError says why a call was not let through. Its text is safe to show to
// the caller; Cause may not be.
//
// Concurrency: read-only.
type RefusedError struct {
	Feature, Subject string         // Subject "": not known
	Reason           license.Reason // why
	RetryAfter       time.Duration  // after which trying again may help; 0: not known
	Cause            error          // what was found, for logs; may be nil
	Total            *Total         // how the subject stands, when a quota of this process is in the way; else nil

	challenge string // for WWW-Authenticate
}

// Error names reason and feature.
func (e *RefusedError) Error() string {
	if e.Feature == "" {
		return "meter: refused: " + string(e.Reason)
	}
	return fmt.Sprintf("meter: refused: %s: feature %q", e.Reason, e.Feature)
}

// Unwrap returns Cause.
func (e *RefusedError) Unwrap() error { return e.Cause }

// Status is the HTTP status of the refusal: 401, 402, 403, 429 or 503.
func (e *RefusedError) Status() int {
	switch e.Reason {
	case license.NoKey:
		return http.StatusUnauthorized
	case license.Unpaid, license.OverQuota:
		return http.StatusPaymentRequired
	case license.TooFast:
		return http.StatusTooManyRequests
	case license.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// ShutdownError says what [Meter.Shutdown] left, and whether it is on disk.
//
// Concurrency: read-only.
type ShutdownError struct {
	Pending int64 // records not delivered, summed over the routes
	Durable bool  // they are on disk and go out when the directory is opened again
	Cause   error // what went wrong; may be nil
}

// Error tells the three.
func (e *ShutdownError) Error() string {
	where := "not all of them on disk"
	if e.Durable {
		where = "safe on disk"
	}
	records := "records"
	if e.Pending == 1 {
		records = "record"
	}
	text := fmt.Sprintf("meter: shutdown: %d %s not delivered, %s", e.Pending, records, where)
	if e.Pending == 0 {
		text = "meter: shutdown"
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns Cause.
func (e *ShutdownError) Unwrap() error { return e.Cause }
