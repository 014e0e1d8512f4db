package stripetest

import (
	"maps"
	"net/http"
	"time"
)

// keyLife is how long Stripe keeps idempotency keys and identifiers. It promises
// "at least" this; this keeps its word to the second, the worst case.
const keyLife = 24 * time.Hour

// maxKey is Stripe's limit for idempotency keys, in characters.
const maxKey = 255

// stored is the first answer to an idempotency key.
type stored struct {
	path, params string
	at           time.Time
	running      bool
	response     response
}

// once runs execute behind the idempotency layer: the first answer is stored,
// whatever it is, and replayed for a day.
func (s *Server) once(r *request, execute func() response) response {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return execute()
	}
	if len(key) > maxKey {
		return invalid("", "", "The Idempotency-Key has more than %d characters.", maxKey)
	}
	path, params := r.URL.Path, r.form.Encode()

	s.mu.Lock()
	first, seen := s.keys[key]
	if seen && !first.running && s.now().Sub(first.at) >= keyLife {
		seen = false
	}
	if !seen {
		first = &stored{path: path, params: params, at: s.now(), running: true}
		s.keys[key] = first
	}
	running, replay := first.running, first.response
	s.mu.Unlock()

	switch {
	case !seen:
		res := execute()
		s.mu.Lock()
		defer s.mu.Unlock()
		first.running, first.response = false, res
		if res.status == http.StatusConflict || res.status == http.StatusTooManyRequests { // a lock, met before execution began
			delete(s.keys, key)
		}
		return res
	case first.path != path || first.params != params:
		return failure(http.StatusBadRequest, "idempotency_error", "", "",
			"Keys for idempotent requests can only be used with the same parameters they were first used with.")
	case running:
		return failure(http.StatusConflict, "idempotency_error", "idempotency_key_in_use", "",
			"There is currently another in-progress request using this Idempotent Key.")
	}
	replay.header = maps.Clone(replay.header)
	if replay.header == nil {
		replay.header = http.Header{}
	}
	replay.header.Set("Idempotent-Replayed", "true")
	return replay
}
