package meter

import (
	"net/http"
	"strconv"
	"time"
)

// quotaText is room for what one answer tells of a quota.
type quotaText struct {
	policy, limit [1]string
}

// tellQuota tells of what is left of a quota; see [Limit].
func (f *Feature) tellQuota(h http.Header, t Total) {
	if t.Limit < 0 {
		return
	}
	var room [96]byte
	number := func(b []byte, key string, n int64) []byte {
		return strconv.AppendInt(append(b, key...), min(n, maxFieldInteger), 10)
	}
	text := &quotaText{}
	b := number(append(room[:0], f.quotaName...), ";q=", t.Limit)
	if window := t.End.Sub(t.Start); !t.Start.IsZero() && window > 0 {
		b = number(b, ";w=", wholeSeconds(window))
	}
	text.policy[0] = string(b)
	b = number(append(room[:0], f.quotaName...), ";r=", t.Left())
	if !t.End.IsZero() {
		b = number(b, ";t=", wholeSeconds(time.Until(t.End)))
	}
	text.limit[0] = string(b)
	setPolicy(h, policyField, f.quotaName, text.policy[:])
	setPolicy(h, limitField, f.quotaName, text.limit[:])
}
