// Package license says whether a caller may use a feature.
package license

import (
	"context"
	"fmt"
	"log/slog"
	"time"
	"unique"
)

// Key is a license key: a secret. fmt, log/slog and encoding/json print
// "[key]", also when it sits in another struct or is a map's key. Two keys of
// the same text are equal. The zero value is no key.
//
// Concurrency: a plain value.
type Key struct{ h unique.Handle[string] }

// NewKey returns the key with this text; "" gives the zero Key.
func NewKey(s string) (k Key) {
	if s != "" {
		k.h = unique.Make(s)
	}
	return k
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// Reveal returns the text of the key, for the one call that needs it.
func (k Key) Reveal() string {
	if k.IsZero() {
		return ""
	}
	return k.h.Value()
}

// Format prints "[key]" whatever the verb.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[key]") }

// LogValue returns "[key]".
func (Key) LogValue() slog.Value { return slog.StringValue("[key]") }

// MarshalText returns "[key]". Its error is always nil.
func (Key) MarshalText() ([]byte, error) { return []byte("[key]"), nil }

// Checker says what a caller may do. An error means unknown, never denied; so do a
// panic, and a verdict whose Until has passed.
//
// It may also have Validate() error, for faults of its configuration; Health() error, for
// what is wrong now; Address() string, which names whose keys it checks, and no
// secret, so that verdicts kept on disk are not believed of others'; and
// Close() error. The cache and the combinations use them.
//
// Blocking: Check may use the network, within ctx.
// Concurrency: must be safe.
type Checker interface {
	Check(ctx context.Context, q Query) (Verdict, error)
}

// CheckerFunc is a function that is a [Checker].
type CheckerFunc func(context.Context, Query) (Verdict, error)

// Check calls f.
//
// Errors: those of f.
func (f CheckerFunc) Check(ctx context.Context, q Query) (Verdict, error) { return f(ctx, q) }

// Query asks for one caller and feature. It holds a Key, or a Subject that the
// host has already authenticated, or both.
//
// Concurrency: a plain value.
type Query struct {
	Key     Key
	Subject string
	Feature string
	Machine string
}

// Status is the heart of a verdict.
//
// Concurrency: a plain value.
type Status uint8

const (
	Unknown Status = iota // nobody could tell; never stored as a denial; the zero value
	Allowed
	Denied
)

// Reason says why a caller was refused, in words that are safe to show.
//
// Concurrency: a plain value.
type Reason string

const (
	NoKey       Reason = "no-key"       // 401
	NotFound    Reason = "not-found"    // 403
	Expired     Reason = "expired"      // 403
	Blocked     Reason = "blocked"      // 403
	NotEntitled Reason = "not-entitled" // 403
	Unpaid      Reason = "unpaid"       // 402
	OverQuota   Reason = "over-quota"   // 402
	TooFast     Reason = "too-fast"     // 429
	Unavailable Reason = "unavailable"  // 503
)

// Verdict is what a check answers.
//
// Concurrency: read-only, Quota included.
type Verdict struct {
	Status  Status
	Reason  Reason    // why not Allowed
	Subject string    // who is billed; required when Allowed
	Until   time.Time // valid until; zero: no end
	Quota   *Quota    // nil: no limit
}

// Quota bounds one feature of one subject in [Start, End); with both zero, in the
// calendar month in UTC. Start zero: since ever; End zero, or not after Start: not
// known. A quota whose Start has yet to come bounds the period before it; one whose
// End has passed goes on from there with the same Limit, and Used 0.
//
// A period begins when a quota is first seen with a later Start than anything that was
// seen since the running one began: that is an upgrade, too. Until then, a quota with
// another Start bounds the running period by its Limit and Used, and may put its End
// off, or say it if it is not known: with a zero Start, or while a quarter of its own
// time is still to come. So a Start that moves with the clock, such as thirty days ago, gives no sliding
// window, but periods of that length, one after the other.
//
// Concurrency: a plain value.
type Quota struct {
	Limit      int64 // in units; below 0: none
	Used       int64 // what others, in directories of their own, are known to have used
	Start, End time.Time
	Soft       bool // more than Limit is let through, counted and reported
}
