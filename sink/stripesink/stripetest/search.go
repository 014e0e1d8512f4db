package stripetest

import (
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// indexed is what search has of a subscription since a moment.
type indexed struct {
	at       time.Time
	status   string
	metadata map[string]string
}

// index notes what search will find of sub from now on.
func (sub *subscription) index(now time.Time) {
	sub.indexed = append(sub.indexed, indexed{now, sub.Status, maps.Clone(sub.Metadata)})
}

// found is what search has of sub, by its lag.
func (sub *subscription) found(by time.Time) (last indexed, ok bool) {
	for _, i := range sub.indexed {
		if !i.at.After(by) {
			last, ok = i, true
		}
	}
	return last, ok
}

// clause is one condition of a search: metadata['field']:'value' or status:'value'.
type clause struct{ field, value string }

var clauseShape = regexp.MustCompile(`^\s*(?:metadata\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]|(status))\s*:\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*(?:(?i:AND)\s+|$)`)

var unescape = regexp.MustCompile(`\\(.)`)

// parseQuery reads clauses joined by AND.
func parseQuery(query string) (clauses []clause, ok bool) {
	for rest := query; ; {
		m := clauseShape.FindStringSubmatch(rest)
		if m == nil {
			return nil, false
		}
		c := clause{field: m[1] + m[2], value: m[4] + m[5]}
		c.field, c.value = unescape.ReplaceAllString(c.field, "$1"), unescape.ReplaceAllString(c.value, "$1")
		if m[3] != "" {
			c.field = ""
		}
		clauses = append(clauses, c)
		whole := m[0]
		rest = rest[len(whole):]
		if rest == "" {
			return clauses, !strings.HasSuffix(strings.ToUpper(strings.TrimSpace(whole)), " AND")
		}
	}
}

// holds compares as Stripe does, without regard to case.
func (c clause) holds(i indexed) bool {
	if c.field == "" {
		return strings.EqualFold(i.status, c.value)
	}
	value, has := i.metadata[c.field]
	return has && strings.EqualFold(value, c.value)
}

func (s *Server) searchSubscriptions(r *request) response {
	clauses, ok := parseQuery(r.required("query"))
	if !ok {
		return invalid("query", "", "We were unable to parse your search query.")
	}
	by := s.now().Add(-s.SearchLag)
	all := s.subscriptions.newest(func(sub *subscription) bool {
		i, found := sub.found(by)
		for _, c := range clauses {
			found = found && c.holds(i)
		}
		return found
	})
	limit := r.int("limit", 10)
	from, err := strconv.Atoi(r.get("page"))
	if r.get("page") == "" {
		from, err = 0, nil
	}
	if limit < 1 || limit > 100 || err != nil || from < 0 || from > len(all) {
		return invalid("limit", "", "Invalid limit or page")
	}
	data, to := []any{}, min(from+int(limit), len(all))
	for _, sub := range all[from:to] {
		data = append(data, s.subscriptionObject(s.roll(sub)))
	}
	var next any
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return response{status: http.StatusOK, object: object{
		"object": "search_result", "url": r.URL.Path, "has_more": next != nil, "next_page": next, "data": data,
	}}
}
