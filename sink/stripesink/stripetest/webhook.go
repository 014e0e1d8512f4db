package stripetest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Delivery is an event on its way to a webhook.
//
// Concurrency: a plain value; treat Body as read-only.
type Delivery struct {
	EventID   string
	Type      string
	Body      []byte // an error report: thin, without data
	Signature string // the header Stripe-Signature
}

// Webhook returns the error reports of all events that were accepted so far and
// can't be billed, oldest first, signed with secret at the server's time. A second
// call returns the same again, as Stripe delivers "at least once", and what is new.
func (s *Server) Webhook(secret string) []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Delivery
	for _, r := range s.report() {
		body := ok(s.thin(r)).encoded().body
		all = append(all, Delivery{r.id, r.kind(), body, Sign(secret, s.now(), body)})
	}
	return all
}

// Request is the delivery as a POST to url. It panics if url is none.
func (d Delivery) Request(url string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(d.Body))
	if err != nil {
		panic(fmt.Sprintf("stripetest: %v", err))
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Stripe-Signature", d.Signature)
	return r
}

// Sign is the header Stripe-Signature of a webhook's body, for payloads of a test's
// own.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%s.%s", t, body) // a hash takes everything
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
