package cryptolenssink

import (
	"errors"
	"fmt"
	"time"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/sink"
)

// operatorDelay is how long a route rests when only a person can help: a wrong token, a
// missing permission, a wrong product.
const operatorDelay = time.Minute

// classify turns the client's error into the outcome of a record. halt says that the
// records behind it should wait, for they would fare no better.
func classify(r sink.Record, err error) (outcome error, halt bool) {
	switch {
	case err == nil:
		return nil, false
	case errors.Is(err, cryptolens.ErrUsageCounter):
		return doubt(r, err), false // Stripe's trouble with this item
	case !errors.Is(err, cryptolens.ErrNotApplied):
		return doubt(r, err), true
	case errors.Is(err, cryptolens.ErrNotSent):
		return notApplied(r, err), true
	case errors.Is(err, cryptolens.ErrPermission): // perhaps it is the key
		return postpone(r, "%w", err), false
	case errors.Is(err, cryptolens.ErrConfig):
		return sink.RetryAfter(notApplied(r, err), operatorDelay), true
	}
	return postpone(r, "%w", err), false // what stands against the key, or its subscription
}

func doubt(r sink.Record, err error) error {
	return fmt.Errorf("cryptolenssink: record %s: %w", r.ID, err)
}

func notApplied(r sink.Record, err error) error {
	return fmt.Errorf("%w: %w", sink.ErrNotApplied, doubt(r, err))
}

func postpone(r sink.Record, format string, args ...any) error {
	return fmt.Errorf("%w: %w", sink.ErrPostponed, doubt(r, fmt.Errorf(format, args...)))
}

func reject(r sink.Record, format string, args ...any) error {
	return fmt.Errorf("%w: %w", sink.ErrRejected, doubt(r, fmt.Errorf(format, args...)))
}

// isDoubt reports whether an outcome is doubt.
func isDoubt(err error) bool {
	return err != nil && !errors.Is(err, sink.ErrNotApplied) && !errors.Is(err, sink.ErrRejected)
}
