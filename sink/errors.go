package sink

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrRejected is final: the biller refused the record and always will. The
	// record goes to quarantine, where an operator decides.
	ErrRejected = errors.New("sink: rejected")
	// ErrNotApplied says that this attempt surely recorded nothing: the
	// connection was refused, the request was throttled, the transaction rolled
	// back before its commit. The record is sent again.
	ErrNotApplied = errors.New("sink: not applied")
	// ErrPostponed is an ErrNotApplied for a reason that is the record's own, such as a
	// subject that nobody can be billed for yet. The record is sent again later; the
	// others of its route are not kept waiting, and Health names one that is.
	ErrPostponed = fmt.Errorf("%w: postponed", ErrNotApplied)
	// ErrUnknownRecord says that there is no such record: another meter's, or one
	// settled so long ago that nothing is left of it. It is no outcome.
	ErrUnknownRecord = errors.New("sink: no such record")
)

// BatchError answers for each record of a batch alone.
//
// Errs has one entry per record, in their order; nil means delivered. With any
// other length nobody knows which answer belongs to which record, and the whole
// batch is in doubt.
//
// A nil *BatchError in a non-nil error, a common slip, answers for no record and
// so means doubt for all.
//
// Concurrency: read-only once returned.
type BatchError struct{ Errs []error }

// Error counts the records that failed and quotes the first failure.
func (e *BatchError) Error() string {
	if e == nil {
		return "sink: nil *BatchError: return a nil error when all are delivered"
	}
	failed := 0
	var first error
	for _, err := range e.Errs {
		if err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("sink: %d of %d records failed: %v", failed, len(e.Errs), first)
}

// Unwrap returns the entries, so that errors.Is and errors.As look into them.
func (e *BatchError) Unwrap() []error {
	if e == nil {
		return nil
	}
	return e.Errs
}

// RetryAfter says that a record, or with a whole batch's error the route, is not
// to be tried again before d has passed. The outcome stays that of err. A nil
// err stays nil.
//
// Errors: the result wraps err.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, max(d, 0)}
}

// RetryDelay returns the longest delay that [RetryAfter] put into err, or 0.
func RetryDelay(err error) time.Duration {
	switch e := err.(type) {
	case nil:
		return 0
	case *retryAfterError:
		return max(e.delay, RetryDelay(e.err))
	case interface{ Unwrap() error }:
		return RetryDelay(e.Unwrap())
	case interface{ Unwrap() []error }:
		var longest time.Duration
		for _, inner := range e.Unwrap() {
			longest = max(longest, RetryDelay(inner))
		}
		return longest
	}
	return 0
}

type retryAfterError struct {
	err   error
	delay time.Duration
}

func (e *retryAfterError) Error() string { return fmt.Sprintf("%v (retry after %v)", e.err, e.delay) }
func (e *retryAfterError) Unwrap() error { return e.err }
