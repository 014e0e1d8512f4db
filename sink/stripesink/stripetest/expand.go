package stripetest

import "strings"

// expand replaces the ID at path within o by what it stands for. It reports whether
// there is such a path.
func (s *Server) expand(o object, path []string) bool {
	key, rest := path[0], path[1:]
	if key == "tiers" && o["object"] == "price" {
		if p := s.prices.byID[o["id"].(string)]; p.Tiers != nil {
			o["tiers"] = tierObjects(p.Tiers)
		}
		return true
	}
	v, there := o[key]
	if id, isID := v.(string); isID {
		if found := s.byID(id); found != nil {
			o[key], v = found, found
		} else if len(rest) == 0 {
			return false
		}
	}
	if len(rest) == 0 {
		return there
	}
	switch v := v.(type) {
	case object:
		return s.expand(v, rest)
	case []any:
		for _, element := range v {
			if one, isObject := element.(object); !isObject || !s.expand(one, rest) {
				return false
			}
		}
		return true
	}
	return v == nil && there
}

// byID finds what may be expanded.
func (s *Server) byID(id string) object {
	kind, _, _ := strings.Cut(id, "_")
	switch kind {
	case "cus":
		if c, found := s.customer(id); found {
			return s.customerObject(c)
		}
	case "sub":
		if sub, found := s.subscription(id); found {
			return s.subscriptionObject(sub)
		}
	}
	if p, found := s.products.byID[id]; found { // their IDs are the vendor's own
		return s.productObject(p)
	}
	return nil
}
