package meter

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Names of header fields, as net/http spells them.
const (
	policyField = "Ratelimit-Policy"
	limitField  = "Ratelimit"
)

// maxFieldInteger is the most that an integer in a structured field may be.
const maxFieldInteger = 999_999_999_999_999

// rateFields tell clients how they stand with a Rate, in the words of
// draft-ietf-httpapi-ratelimit-headers-11. A policy is named after its feature. Its
// window w is the time, in whole seconds, in which an empty burst fills up, and its
// quota q what the rate gives in that time. What remains, r, are the whole calls that
// are there now; there are no more within t.
type rateFields struct {
	allowance
	name   string // of the policy, quoted
	policy string // all of the field
}

func fieldsOf(feature string, a allowance) rateFields {
	f := rateFields{allowance: a, name: quoted(feature)}
	quota, window := float64(a.burst), math.Ceil(float64(a.burst)/float64(a.limit))
	if window <= maxRetryAfter.Seconds() { // else it has no use, or no end
		window = max(window, 1)
		quota = max(quota, math.Floor(float64(a.limit)*window))
		f.policy = fmt.Sprintf(";w=%d", int64(window))
	}
	f.policy = fmt.Sprintf("%s;q=%d%s", f.name, int64(min(quota, maxFieldInteger)), f.policy)
	return f
}

// rateText is room for what one answer tells. Its strings lie in it, so it must not
// be used twice.
type rateText struct {
	policy, limit [1]string
	text          [64]byte // longer ones are allocated
}

// write tells of left calls. Fields of other policies, such as those of a
// Middleware around this one, stay.
func (f *rateFields) write(h http.Header, t *rateText, left float64) {
	r := min(max(math.Floor(left), 0), maxFieldInteger)
	b := append(t.text[:0], f.name...)
	b = append(b, ";r="...)
	b = strconv.AppendInt(b, int64(r), 10)
	if next := f.next(left); next > 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, wholeSeconds(next), 10)
	}
	t.policy[0], t.limit[0] = f.policy, unsafe.String(unsafe.SliceData(b), len(b))
	setPolicy(h, policyField, f.name, t.policy[:])
	setPolicy(h, limitField, f.name, t.limit[:])
}

// setPolicy replaces what was told of the same policy.
func setPolicy(h http.Header, field, name string, value []string) {
	switch before := h[field]; {
	case len(before) == 0, len(before) == 1 && names(before[0], name):
		h[field] = value
	default:
		h[field] = append(before[:len(before):len(before)], value...)
	}
}

func names(value, policy string) bool {
	rest, ok := strings.CutPrefix(value, policy)
	return ok && strings.HasPrefix(rest, ";")
}

// wholeSeconds rounds up, for who comes back early is refused again.
func wholeSeconds(d time.Duration) int64 {
	return int64((max(d, 1)-1)/time.Second) + 1
}

// quoted is s as a string of a structured field, which knows ASCII only.
func quoted(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c >= 0x7f || c == '%':
			b = fmt.Appendf(b, "%%%02X", c)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
