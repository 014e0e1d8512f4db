package stripeapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxDelay bounds what a server may ask for by Retry-After.
const MaxDelay = time.Hour

// HTML reports whether the answer is a web page, so not Stripe's.
func (e *Exchange) HTML() bool {
	return strings.Contains(e.Header.Get("Content-Type"), "html") ||
		strings.HasPrefix(strings.TrimSpace(string(e.Body[:min(len(e.Body), 64)])), "<")
}

// Is reports whether the answer is a success and calls itself this object. A proxy says
// 200, too.
func (e *Exchange) Is(object string) bool {
	var said struct {
		Object string `json:"object"`
	}
	return e.Complete && e.Status >= 200 && e.Status < 300 && json.Unmarshal(e.Body, &said) == nil && said.Object == object
}

// RetryAfter reads the header of that name in both its forms, seconds and date; at most
// an hour, 0 without it.
func (e *Exchange) RetryAfter() time.Duration {
	text := e.Header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), MaxDelay)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), MaxDelay)
	}
	return 0
}
