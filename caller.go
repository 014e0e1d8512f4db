package meter

import (
	"context"

	"github.com/inprocess/meter/license"
)

// Caller is who is asking. With a Checker, the verdict on Key or Subject says who
// is billed; without one, Subject is billed, and a Key alone names nobody.
//
// Concurrency: a plain value.
type Caller struct {
	Key     license.Key // what the caller presented: a secret
	Subject string      // whom the host has authenticated
	Machine string      // where the caller runs, for licenses bound to machines; at most 256 bytes
}

type callerKey struct{}

// WithCaller returns a context under which calls are made by c. A call's own
// context has its caller, so that a call begun inside is made by the same, unless
// WithCaller says otherwise.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, &c)
}

func callerOf(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return *c
	}
	return Caller{}
}
