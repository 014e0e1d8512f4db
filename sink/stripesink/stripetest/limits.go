package stripetest

import (
	"net/http"
	"slices"
	"strings"
)

// Forbid takes away the permission for endpoints, such as
// "POST /v1/billing/meter_events", as from a restricted key: they answer 403. It
// panics if there is no such endpoint.
func (s *Server) Forbid(endpoints ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, endpoint := range endpoints {
		s.mustServe(endpoint)
	}
	s.forbid = append(s.forbid, endpoints...)
}

// admit answers unless the key or the rate is against it.
func (s *Server) admit(r *request, answer func(*request) response) response {
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isBearer || s.Key != "" && given != s.Key {
		// Stripe masks the key; this one quotes it whole, as a careless proxy might.
		return failure(http.StatusUnauthorized, "invalid_request_error", "", "", "Invalid API Key provided: "+given)
	}
	if s.forbidden(r.Pattern) {
		return failure(http.StatusForbidden, "invalid_request_error", "", "",
			"The provided key '"+given+"' does not have the required permissions for this endpoint.")
	}
	if s.overRate() {
		return throttled("global-rate")
	}
	return answer(r)
}

func (s *Server) forbidden(endpoint string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.forbid, endpoint)
}

// overRate counts a request within its second of the clock.
func (s *Server) overRate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := s.now().Unix(); second != s.second {
		s.second, s.inSecond = second, 0
	}
	if s.inSecond++; s.Rate == 0 || s.inSecond <= s.Rate {
		return false
	}
	s.counters.throttled++
	return true
}
