package main

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
)

// biller answers POST /v1/billing/meter_events as Stripe does, and little else: it
// must not be what is measured. It replays answers to a known Idempotency-Key,
// refuses identifiers that it has seen, and has bad days.
type biller struct {
	*httptest.Server
	storm time.Duration // from the first request on, everything is refused with 429
	lost  float64       // part of the answers that never arrive, though the event is recorded

	mu       sync.Mutex
	began    time.Time // of the first request
	requests int
	billed   int64
	keys     map[string]struct{}
	ids      map[string]struct{}
	random   *rand.Rand
}

func newBiller() *biller {
	b := &biller{keys: map[string]struct{}{}, ids: map[string]struct{}{}, random: rand.New(rand.NewPCG(1, 1))}
	b.Server = httptest.NewServer(b)
	return b
}

const eventAnswer = `{"object":"billing.meter_event","created":1767225600,"event_name":"tax_report","livemode":false}`

func (b *biller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	if err != nil {
		return
	}
	b.mu.Lock()
	b.requests++
	if b.requests == 1 {
		b.began = time.Now()
	}
	if time.Since(b.began) < b.storm {
		b.mu.Unlock()
		w.Header().Set("Stripe-Rate-Limited-Reason", "global-rate")
		refuse(w, http.StatusTooManyRequests, "rate_limit", "Too many requests.")
		return
	}
	key, id := r.Header.Get("Idempotency-Key"), form.Get("identifier")
	_, replay := b.keys[key]
	_, known := b.ids[id]
	if !replay && !known {
		value, _ := strconv.ParseInt(form.Get("payload[value]"), 10, 64)
		b.billed += value
		b.keys[key] = struct{}{}
		if id != "" {
			b.ids[id] = struct{}{}
		}
	}
	lost := b.random.Float64() < b.lost
	b.mu.Unlock()
	switch {
	case lost:
		panic(http.ErrAbortHandler)
	case known && !replay:
		refuse(w, http.StatusBadRequest, "", "An event already exists with identifier "+id+".")
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, eventAnswer)
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"type": "invalid_request_error", "code": code, "message": message}})
}

// state is what was asked for and billed so far.
func (b *biller) state() (requests int, billed int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests, b.billed
}

func (b *biller) sink() *stripesink.Sink {
	return stripesink.New(stripesink.Config{
		Key: "sk_test_bench", BaseURL: b.URL,
		Meters: map[string]stripesink.Meter{"report": {EventName: "tax_report"}},
	})
}

func quietBackend(url string) stripe.Backend {
	return stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL: stripe.String(url), LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	})
}

// unpaced is a stripesink that sends as fast as the server takes it.
type unpaced struct{ *stripesink.Sink }

func (u unpaced) Limits() sink.Limits {
	l := u.Sink.Limits()
	l.Rate, l.Concurrency = 0, 16
	return l
}

// noPrepare leaves out the question whether there is such a meter.
type noPrepare struct{ inner sink.Sink }

func (n noPrepare) Deliver(ctx context.Context, records []sink.Record) error {
	return n.inner.Deliver(ctx, records)
}
func (n noPrepare) Limits() sink.Limits { return n.inner.(sink.Limiter).Limits() }
