package cryptolenstest

import "slices"

// AddToken makes a token with these permissions; without any it has all. From then on
// other tokens are refused. Permissions are Subscription (for RecordUsage), GetKey,
// Activate, Deactivate, AddDataObject, ListDataObject, SetIntValue, SetStringValue,
// IncrementIntValue and DecrementIntValue.
func (s *Server) AddToken(token string, permissions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range permissions {
		known := false
		for _, e := range s.endpoints {
			known = known || e.permission == p
		}
		if !known {
			panic("cryptolenstest: there is no permission " + p)
		}
	}
	s.tokens[token] = permissions
}

// RevokeToken takes a token away. If it was the last one, any is taken again.
func (s *Server) RevokeToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// admit looks the token and the key up, and refuses what stands against them.
func (s *Server) admit(r *request) *reply {
	permissions, known := s.tokens[r.get("token")]
	product, isProduct := r.int("ProductId", 0)
	switch {
	case r.get("token") == "" || len(s.tokens) > 0 && !known:
		return refuse("Unable to authenticate.")
	case len(permissions) > 0 && !slices.Contains(permissions, r.permission):
		return refuse(r.about("Access denied."))
	case !isProduct || r.get("Key") == "":
		return refuse("The input parameters were incorrect.")
	case s.products[product] == nil:
		return refuse("Could not find the product.")
	}
	if r.key = s.products[product][r.get("Key")]; r.key == nil {
		return refuse(r.about("Could not find the key."))
	}
	return nil
}

// about is what a method says to a missing permission or key: those of data objects
// have one message for both.
func (r *request) about(message string) string {
	if r.key == nil && r.ofData() {
		return "Not enough permission and/or key not found."
	}
	return message
}
