package meter

import (
	"fmt"
	"net/http"
)

const (
	idempotencyHeader = "Idempotency-Key"
	maxIdempotencyKey = 255
)

// IdempotencyKey has [Middleware] count a request once that a client sends again:
// same Idempotency-Key field, same subject and same feature, within
// [Config.EventWindow], over restarts, too. The check of the caller, its Rate and
// the handler are as for any other request; the count is that of
// [Feature.AddEvent]. A request without the field counts as usual. One whose field
// is empty, above 255 bytes, not UTF-8, has control characters or stands there twice
// is answered with 400 and never reaches the handler.
//
// A request whose key was counted is held to no quota, and takes no prepaid units, for it
// uses none: a client whose answer was lost gets what it has paid for, also when nothing
// is left. One that comes while its first attempt runs is held to them, as any other.
// Should the key be forgotten while the call runs, it counts in full.
//
// When a call that counts is repeated with another quantity, the first one stands,
// and the Logger is told. A first call that did not count leaves nothing to repeat.
//
// Only billing is made idempotent: the handler runs each time. Use it where the
// handler answers a key that it has seen with what it answered before, as
// draft-ietf-httpapi-idempotency-key-header asks for. Elsewhere a client that sends
// the same key with all its requests pays for one of them.
func IdempotencyKey() Option {
	return callOption(func(c *callConfig) { c.keyed = true })
}

// badIdempotencyKey is answered with 400.
type badIdempotencyKey struct{ why string }

func (e *badIdempotencyKey) Error() string {
	return fmt.Sprintf("meter: the %s field %s", idempotencyHeader, e.why)
}

// idempotencyKey finds a request's key; "" if it has none. An error does not show it.
func idempotencyKey(h http.Header) (string, error) {
	values := h[idempotencyHeader]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", &badIdempotencyKey{"stands there twice"}
	case values[0] == "":
		return "", &badIdempotencyKey{"is empty"}
	case len(values[0]) > maxIdempotencyKey:
		return "", &badIdempotencyKey{fmt.Sprintf("has %d bytes, at most %d", len(values[0]), maxIdempotencyKey)}
	case hasControl(values[0]):
		return "", &badIdempotencyKey{"is not UTF-8, or has a control character"}
	}
	return values[0], nil
}
