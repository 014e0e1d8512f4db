package prepaid

import (
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/license"
)

// balanceError is an error of a Balance. What it has to say was asked once, where a panic
// of its methods does no harm.
type balanceError struct {
	err                     error
	text                    string
	after                   time.Duration // RetryAfter; 0: it has none
	notApplied, undecidable bool
}

func (e *balanceError) Error() string { return e.text }
func (e *balanceError) Unwrap() error { return e.err }

func (e *balanceError) Is(target error) bool {
	return e.notApplied && target == license.ErrNotApplied || e.undecidable && target == license.ErrUndecidable
}

// retrier is an error that knows when asking again may help.
type retrier interface{ RetryAfter() time.Duration }

// guarded calls a Balance, and makes an error of its panic, and of that of its error,
// without what it says: that may hold a key.
func guarded(method string, call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the Balance, or its error, panicked in %s with a %T", method, v)
		}
	}()
	if err = call(); err == nil {
		return nil
	}
	e := &balanceError{err: err, text: err.Error(), notApplied: errors.Is(err, license.ErrNotApplied), undecidable: errors.Is(err, license.ErrUndecidable)}
	if r := retrier(nil); errors.As(err, &r) {
		e.after = r.RetryAfter()
	}
	return e
}
