package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meterevent"
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

func newBiller(tb testing.TB) *biller {
	b := &biller{keys: map[string]struct{}{}, ids: map[string]struct{}{}, random: rand.New(rand.NewPCG(1, 1))}
	b.Server = httptest.NewServer(b)
	tb.Cleanup(b.Close)
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

// unpaced is a stripesink that sends as fast as the server takes it.
type unpaced struct{ *stripesink.Sink }

func (u unpaced) Limits() sink.Limits {
	l := u.Sink.Limits()
	l.Rate, l.Concurrency = 0, 16
	return l
}

func (b *biller) sink() *stripesink.Sink {
	return stripesink.New(stripesink.Config{
		Key: "sk_test_bench", BaseURL: b.URL,
		Meters: map[string]stripesink.Meter{"report": {EventName: "tax_report"}},
	})
}

// stripeDays are the days that Stripe may have.
var stripeDays = []struct {
	name string
	set  func(*biller)
}{
	{"fine", func(*biller) {}},
	{"1% lost replies", func(b *biller) { b.lost = 0.01 }},
	{"429 storm", func(b *biller) { b.storm = time.Second }},
}

const stripeCustomers = 100

// BenchmarkStripe bills invocations of 100 customers: through a meter, and by one
// meter event each, as the SDK's documentation shows. billed/count is 1 where
// every invocation was billed once.
func BenchmarkStripe(b *testing.B) {
	for _, day := range stripeDays {
		b.Run("meter/"+day.name, func(b *testing.B) {
			server := newBiller(b)
			day.set(server)
			m, err := meter.Open(meter.Config{
				Dir: b.TempDir(), Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler),
				Sinks: []meter.Route{{Name: "stripe", Sink: noPrepare{unpaced{server.sink()}}}},
			})
			require.NoError(b, err)
			ctx := context.Background()
			report := m.Feature("report")
			counts := 0
			for b.Loop() {
				if err := report.Add(ctx, customer(counts%stripeCustomers), 1); err != nil {
					b.Fatal(err)
				}
				counts++
			}
			for m.Flush(ctx) != nil { // a bad day: until it is through
			}
			server.report(b, counts)
			require.NoError(b, m.Shutdown(ctx))
		})
		b.Run("meterevent.New/"+day.name, func(b *testing.B) {
			server := newBiller(b)
			day.set(server)
			events := meterevent.Client{Key: "sk_test_bench", B: stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
				URL: stripe.String(server.URL), LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
			})}
			counts, failed := 0, 0
			for b.Loop() {
				_, err := events.New(&stripe.BillingMeterEventParams{
					EventName: stripe.String("tax_report"),
					Payload:   map[string]string{"stripe_customer_id": customer(counts % stripeCustomers), "value": "1"},
				})
				counts++
				if err != nil {
					failed++ // and now? The count is in nobody's hands
				}
			}
			server.report(b, counts)
			b.ReportMetric(float64(failed)/float64(counts), "failed/count")
		})
	}
}

func (b *biller) report(tb *testing.B, counts int) {
	requests, billed := b.state()
	tb.ReportMetric(float64(requests)*1e6/float64(counts), "requests/Mcount")
	tb.ReportMetric(float64(billed)/float64(counts), "billed/count")
}

func customer(n int) string { return fmt.Sprintf("cus_%07d", n) }

// noPrepare leaves out the question whether there is such a meter.
type noPrepare struct{ inner sink.Sink }

func (n noPrepare) Deliver(ctx context.Context, records []sink.Record) error {
	return n.inner.Deliver(ctx, records)
}
func (n noPrepare) Limits() sink.Limits { return n.inner.(sink.Limiter).Limits() }

var backlog = flag.Int("backlog", 2_000, "records of TestBacklogDrains")

// TestBacklogDrains leaves a sink down until many records wait, and lets it go: they
// leave at the rate that the sink states, each once, in bounded memory. A million,
// which takes some minutes:
//
//	go test -run TestBacklogDrains -backlog 1000000 -timeout 60m -v .
func TestBacklogDrains(t *testing.T) {
	server := newBiller(t)
	m, err := meter.Open(meter.Config{
		Dir: t.TempDir(), Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler), MaxDisk: 8 << 30,
		Sinks: []meter.Route{{Name: "stripe", Sink: noPrepare{paced{server.sink()}}}},
	})
	require.NoError(t, err)
	ctx := context.Background()
	report := m.Feature("report")
	for i := range *backlog {
		require.NoError(t, report.Add(ctx, customer(i), 2))
	}
	before := heap()
	began, peak, stop := time.Now(), uint64(0), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				peak = max(peak, heap())
			}
		}
	})
	require.NoError(t, m.Flush(ctx))
	took := time.Since(began)
	close(stop)
	watching.Wait()
	requests, billed := server.state()
	require.EqualValues(t, 2**backlog, billed)
	require.Equal(t, *backlog, requests)
	rate := float64(*backlog) / took.Seconds()
	t.Logf("%d records in %v: %.0f a second of %d allowed; heap before %d MiB, at most %d MiB meanwhile (the server's memory of IDs included)",
		*backlog, took.Round(time.Millisecond), rate, drainRate, before>>20, peak>>20)
	require.Less(t, rate, drainRate*1.1+float64(drainRate)/took.Seconds())
	require.NoError(t, m.Shutdown(ctx))
}

// drainRate is above Stripe's, so that a million does not take all day.
const drainRate = 4000

type paced struct{ *stripesink.Sink }

func (p paced) Limits() sink.Limits {
	l := p.Sink.Limits()
	l.Rate, l.Concurrency = drainRate, 16
	return l
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
