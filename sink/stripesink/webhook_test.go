package stripesink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76/webhook"
)

const secret = "whsec_canary4711"

// desk is a webhook handler, what Stripe answers to its questions, and what it did.
type desk struct {
	http.Handler
	log bytes.Buffer // of one delivery at a time

	mu       sync.Mutex
	reopened []string // ID and reason
	fails    error    // what Reopen returns
	asked    []string // paths
	answer   func(*http.Request) (int, string)
}

func newDesk(change func(*stripesink.Config)) *desk {
	d := &desk{}
	s := stripesink.New(config(func(c *stripesink.Config) {
		c.HTTPClient = &http.Client{Transport: d}
		if change != nil {
			change(c)
		}
	}))
	d.Handler = s.Webhook(stripesink.WebhookConfig{
		Secrets: []string{"whsec_other", secret},
		Reopen: func(_ context.Context, id, reason string) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.reopened = append(d.reopened, id+" "+reason)
			return d.fails
		},
		Logger: slog.New(slog.NewTextHandler(&d.log, nil)),
	})
	return d
}

// RoundTrip is Stripe, asked by the sink.
func (d *desk) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r.URL.Path)
	if d.answer == nil {
		return nil, errors.New("no network for " + r.Header.Get("Authorization"))
	}
	status, body := d.answer(r)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// deliver posts body as Stripe does, signed with secret at a time of its clock.
func deliver(h http.Handler, secret, body string, at time.Time) *httptest.ResponseRecorder {
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: secret, Timestamp: at})
	r := httptest.NewRequest(http.MethodPost, "/stripe", strings.NewReader(body))
	r.Header.Set("Stripe-Signature", signed.Header)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// reportOf is a whole event that reports an error per identifier, of count altogether.
func reportOf(id string, count int, identifiers ...string) string {
	var samples []string
	for _, identifier := range identifiers {
		samples = append(samples, fmt.Sprintf(`{"error_message": "No such customer.", "request": {"identifier": %q}}`, identifier))
	}
	return fmt.Sprintf(`{"id": %q, "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
		"created": "2026-03-01T13:00:00.000Z", "livemode": false, "reason": null,
		"related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
		"data": {"developer_message_summary": "There are invalid events", "reason": {"error_count": %d, "error_types": [
			{"code": "meter_event_customer_not_found", "error_count": %d, "sample_errors": [%s]}]}}}`,
		id, count, count, strings.Join(samples, ","))
}

func thin(id string) string {
	return fmt.Sprintf(`{"id": %q, "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
		"created": "2026-03-01T13:00:00.000Z", "livemode": false,
		"related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}}`, id)
}

const reason = " Stripe could not bill it (meter_event_customer_not_found): No such customer."

// A thin event brings no more than its ID: the rest is asked from Stripe.
func TestWebhookReopens(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	d.answer = func(r *http.Request) (int, string) {
		require.Equal(t, "2024-09-30.acacia", r.Header.Get("Stripe-Version"))
		require.Equal(t, "Bearer "+testKey, r.Header.Get("Authorization"))
		return 200, reportOf("evt_test_1", 2, "01-record-0", "01-record-1")
	}
	require.Equal(t, 200, deliver(d, secret, thin("evt_test_1"), time.Now()).Code)
	require.Equal(t, []string{"/v2/core/events/evt_test_1"}, d.asked)
	require.Equal(t, []string{"01-record-0" + reason, "01-record-1" + reason}, d.reopened)
	require.Contains(t, d.log.String(), "errors=2 named=2")
	require.NotContains(t, d.log.String(), "Reconcile")
}

// From an event that Stripe takes and can't bill to the record's reopening.
func TestWebhookOfWhatStripeReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripesink.Config) { c.Meters["export"] = stripesink.Meter{EventName: "none"} })
		var reopened []string
		h := a.sink.Webhook(stripesink.WebhookConfig{
			Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
			Reopen: func(_ context.Context, id, reason string) error {
				reopened = append(reopened, id+": "+reason)
				return nil
			},
		})
		time.Sleep(time.Hour)
		a.recorded(t, lately(0, 1), of(lately(1, 1), "cus_gone", feature), of(lately(2, 1), customer, "export"))
		time.Sleep(time.Minute)
		for range 2 { // at least once, says Stripe
			deliveries := a.Webhook(secret)
			require.Len(t, deliveries, 2)
			for _, d := range deliveries {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, d.Request("https://vendor.example/stripe"))
				require.Equal(t, http.StatusOK, w.Code)
			}
		}
		slices.Sort(reopened)
		require.Equal(t, []string{
			"01-lately-1-cus-gone-tax-report: Stripe could not bill it (meter_event_customer_not_found): Customer cus_gone not found.",
			"01-lately-2-cus-1-export: Stripe could not bill it (no_meter): No meter was found matching event_name none.",
		}, reopened)
	})
}

func TestWebhookSaysWhenErrorsAreNotNamed(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	require.Equal(t, 200, deliver(d, secret, reportOf("evt_1", 5000, "01-record-0"), time.Now()).Code)
	require.Contains(t, d.log.String(), "level=WARN")
	require.Contains(t, d.log.String(), "errors=5000 named=1")
	require.Contains(t, d.log.String(), "Reconcile finds the rest")
	require.Len(t, d.reopened, 1)
	require.Empty(t, d.asked, "the data was there")
}

func TestWebhookWithoutMeter(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	body := strings.NewReplacer("error_report_triggered", "no_meter_found", "meter_event_customer_not_found", "no_meter").
		Replace(reportOf("evt_1", 1, "01-record-0"))
	require.Equal(t, 200, deliver(d, secret, body, time.Now()).Code)
	require.Equal(t, []string{"01-record-0 Stripe could not bill it (no_meter): No such customer."}, d.reopened)
}

// Stripe calls what a sample names both the event's identifier and the request's
// idempotency key, which is longer on later attempts.
func TestWebhookKnowsTheKeysOfLaterAttempts(t *testing.T) {
	t.Parallel()
	tap, s := newWiretap(t, stripesink.Meter{EventName: event})
	r := record(0, 1)
	r.Attempt, r.Doubt = 2, true
	require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))
	key := tap.headers[0].Get("Idempotency-Key")
	require.NotEqual(t, r.ID, key)

	d := newDesk(nil)
	require.Equal(t, 200, deliver(d, secret, reportOf("evt_1", 1, key), time.Now()).Code)
	require.Equal(t, []string{r.ID + reason}, d.reopened)
}

func TestWebhookRefusals(t *testing.T) {
	t.Parallel()
	body := reportOf("evt_1", 1, "01-record-0")
	signed := func(secret, body string, at time.Time) func(*http.Request) {
		return func(r *http.Request) {
			p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: secret, Timestamp: at})
			r.Header.Set("Stripe-Signature", p.Header)
		}
	}
	now := time.Now()
	tests := map[string]struct {
		method, body string
		sign         func(*http.Request)
		want         int
		says         string
	}{
		"fine":                {body: body, sign: signed(secret, body, now), want: 200},
		"the older secret":    {body: body, sign: signed("whsec_other", body, now), want: 200},
		"almost too old":      {body: body, sign: signed(secret, body, now.Add(-4*time.Minute)), want: 200},
		"almost too new":      {body: body, sign: signed(secret, body, now.Add(4*time.Minute)), want: 200},
		"too old":             {body: body, sign: signed(secret, body, now.Add(-6*time.Minute)), want: 400, says: "within 5 minutes"},
		"too new":             {body: body, sign: signed(secret, body, now.Add(6*time.Minute)), want: 400, says: "within 5 minutes"},
		"too new by far":      {body: body, sign: signed(secret, body, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)), want: 400, says: "within 5 minutes"},
		"too new a second t":  {body: body, sign: func(r *http.Request) { addTime(r, body, now, now.Add(time.Hour)) }, want: 400, says: "within 5 minutes"},
		"another secret":      {body: body, sign: signed("whsec_stranger", body, now), want: 400, says: "no valid signature"},
		"no secret":           {body: body, sign: signed("", body, now), want: 400, says: "no valid signature"},
		"another body":        {body: body, sign: signed(secret, body+" ", now), want: 400, says: "no valid signature"},
		"unsigned":            {body: body, sign: func(*http.Request) {}, want: 400, says: "no valid signature"},
		"half a header":       {body: body, sign: func(r *http.Request) { r.Header.Set("Stripe-Signature", "t=1,v1") }, want: 400},
		"without a time":      {body: body, sign: func(r *http.Request) { r.Header.Set("Stripe-Signature", "v1=00") }, want: 400},
		"GET":                 {method: http.MethodGet, sign: func(*http.Request) {}, want: 405},
		"PUT":                 {method: http.MethodPut, body: body, sign: signed(secret, body, now), want: 405},
		"as large as allowed": {body: padded(64 << 10), sign: signed(secret, padded(64<<10), now), want: 200},
		"too large":           {body: padded(64<<10 + 1), sign: signed(secret, padded(64<<10+1), now), want: 413},
		"no JSON":             {body: "x", sign: signed(secret, "x", now), want: 400},
		"no object":           {body: "[]", sign: signed(secret, "[]", now), want: 400},
		"no ID":               {body: `{"type":"x"}`, sign: signed(secret, `{"type":"x"}`, now), want: 400},
		"no type":             {body: `{"id":"evt_1"}`, sign: signed(secret, `{"id":"evt_1"}`, now), want: 400},
		"a path as ID":        {body: thin("evt_1/../../x"), sign: signed(secret, thin("evt_1/../../x"), now), want: 400},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(nil)
			method := test.method
			if method == "" {
				method = http.MethodPost
			}
			r := httptest.NewRequest(method, "/stripe", strings.NewReader(test.body))
			test.sign(r)
			w := httptest.NewRecorder()
			d.ServeHTTP(w, r)
			require.Equal(t, test.want, w.Code)
			require.Contains(t, w.Body.String(), test.says)
			require.Equal(t, test.want == 200, len(d.reopened) == 1)
			require.Empty(t, d.asked)
			require.NotContains(t, w.Body.String()+d.log.String(), "canary")
		})
	}
}

// addTime signs at first and names a second time behind it, by which the SDK checks.
func addTime(r *http.Request, body string, first, second time.Time) {
	p := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(body), Secret: secret, Timestamp: second})
	r.Header.Set("Stripe-Signature", fmt.Sprintf("t=%d,%s", first.Unix(), p.Header))
}

func padded(size int) string {
	body := reportOf("evt_1", 1, "01-record-0")
	return body + strings.Repeat(" ", size-len(body))
}

func TestWebhookIgnores(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		live bool   // of the key
		says string // in the log; "": nothing is said
	}{
		"other types": {body: `{"id":"evt_1","object":"event","created":1,"type":"invoice.paid","data":{"object":{"reason":7}},"livemode":false}`},
		"a ping":      {body: `{"id":"evt_1","object":"v2.core.event","type":"v2.core.event_destination.ping"}`},
		"live event":  {body: strings.Replace(reportOf("evt_1", 1, "a"), `"livemode": false`, `"livemode": true`, 1), says: "the other mode"},
		"test event":  {body: reportOf("evt_1", 1, "a"), live: true, says: "the other mode"},
		"foreign identifier": {
			body: reportOf("evt_1", 1, "Order "+testKey+"\n"), says: `identifier="Order [key] "`,
		},
		"long identifier": {body: reportOf("evt_1", 1, strings.Repeat("a", 65)), says: "none of this library's"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(func(c *stripesink.Config) {
				if test.live {
					c.Key = "sk_live_1"
				}
			})
			require.Equal(t, 200, deliver(d, secret, test.body, time.Now()).Code)
			require.Empty(t, d.reopened)
			require.Empty(t, d.asked)
			if test.says == "" {
				require.Empty(t, d.log.String())
			}
			require.Contains(t, d.log.String(), test.says)
		})
	}
}

// Stripe delivers an event more than once.
func TestWebhookDealsWithAnEventOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	for range 3 {
		require.Equal(t, 200, deliver(d, secret, reportOf("evt_1", 1, "01-record-0"), time.Now()).Code)
	}
	require.Len(t, d.reopened, 1)
	require.Equal(t, 200, deliver(d, secret, reportOf("evt_2", 1, "01-record-0"), time.Now()).Code)
	require.Len(t, d.reopened, 2)
}

func TestWebhookIsSentAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	d.fails = errors.New("disk full")
	body := reportOf("evt_1", 2, "01-record-0", "01-record-1")
	for range 2 {
		require.Equal(t, 500, deliver(d, secret, body, time.Now()).Code)
	}
	require.Len(t, d.reopened, 4, "one that fails keeps no other back")
	require.Contains(t, d.log.String(), "disk full")
	d.fails = nil
	require.Equal(t, 200, deliver(d, secret, body, time.Now()).Code)
	require.Len(t, d.reopened, 6)
}

func TestWebhookForgetsAnEventThatPanicked(t *testing.T) {
	t.Parallel()
	calls := 0
	h := stripesink.New(config(func(*stripesink.Config) {})).Webhook(stripesink.WebhookConfig{
		Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
		Reopen: func(context.Context, string, string) error {
			if calls++; calls == 1 {
				panic("boom")
			}
			return nil
		},
	})
	body := reportOf("evt_1", 1, "01-record-0")
	require.Panics(t, func() { deliver(h, secret, body, time.Now()) })
	require.Equal(t, 200, deliver(h, secret, body, time.Now()).Code)
	require.Equal(t, 2, calls)
}

func TestWebhookOfAnUnknownRecord(t *testing.T) {
	t.Parallel()
	d := newDesk(nil)
	d.fails = fmt.Errorf("meter: %w", sink.ErrUnknownRecord)
	require.Equal(t, 200, deliver(d, secret, reportOf("evt_1", 1, "01-record-0"), time.Now()).Code)
	require.Contains(t, d.log.String(), "a record that is not here")
	require.Contains(t, d.log.String(), "record=01-record-0")
}

// While an event is dealt with, the same again is put off, not answered as done.
func TestWebhookInParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := stripesink.New(config(func(*stripesink.Config) {})).Webhook(stripesink.WebhookConfig{
			Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
			Reopen: func(context.Context, string, string) error { <-release; return nil },
		})
		body := reportOf("evt_1", 1, "01-record-0")
		first := make(chan int)
		go func() { first <- deliver(h, secret, body, time.Now()).Code }()
		synctest.Wait()
		require.Equal(t, 409, deliver(h, secret, body, time.Now()).Code)
		close(release)
		require.Equal(t, 200, <-first)
		require.Equal(t, 200, deliver(h, secret, body, time.Now()).Code)
	})
}

func TestWebhookEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := stripesink.New(config(func(*stripesink.Config) {})).Webhook(stripesink.WebhookConfig{
			Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
			Reopen: func(ctx context.Context, _, _ string) error { <-ctx.Done(); return ctx.Err() },
		})
		began := time.Now()
		require.Equal(t, 500, deliver(h, secret, reportOf("evt_1", 1, "a"), time.Now()).Code)
		require.Equal(t, 15*time.Second, time.Since(began))
	})
}

// Whatever keeps the event from being read, Stripe shall send it again.
func TestWebhookThatCannotAsk(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		says   string
	}{
		"another event": {200, reportOf("evt_2", 1, "a"), "another event"},
		"other mode":    {200, strings.Replace(reportOf("evt_1", 1, "a"), "false", "true", 1), "another event"},
		"no data":       {200, thin("evt_1"), "no report in its data"},
		"null":          {200, "null", "perhaps not Stripe's"},
		"no JSON":       {200, testKey, "body sample: '[key]'"},
		"a page":        {502, "<html>" + testKey, "(status 502)"},
		"redirect":      {302, reportOf("evt_1", 1, "a"), "(status 302)"},
		"no permission": {403, stripeError("invalid_request_error", "", "The key "+testKey+" may not"), "needs read access to events"},
		"not there yet": {404, stripeError("invalid_request_error", "not_found", "No such event"), "No such event"},
		"too many":      {429, stripeError("invalid_request_error", "rate_limit", "Slow down"), "Slow down"},
		"oversized":     {200, strings.Repeat(" ", 2<<20), "(status 200)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(nil)
			d.answer = func(*http.Request) (int, string) { return test.status, test.body }
			w := deliver(d, secret, thin("evt_1"), time.Now())
			require.Equal(t, 500, w.Code)
			require.Empty(t, w.Body.String())
			require.Empty(t, d.reopened)
			require.Len(t, d.asked, 1)
			require.Contains(t, d.log.String(), test.says)
			require.NotContains(t, d.log.String(), "canary")

			d.answer = func(*http.Request) (int, string) { return 200, reportOf("evt_1", 1, "a") }
			require.Equal(t, 200, deliver(d, secret, thin("evt_1"), time.Now()).Code)
			require.Len(t, d.reopened, 1)
		})
	}
	d := newDesk(nil)
	require.Equal(t, 500, deliver(d, secret, thin("evt_1"), time.Now()).Code)
	require.Contains(t, d.log.String(), "no network for Bearer [key]")
}

func TestWebhookConfig(t *testing.T) {
	t.Parallel()
	s := stripesink.New(config(func(*stripesink.Config) {}))
	reopen := func(context.Context, string, string) error { return nil }
	for name, test := range map[string]struct {
		cfg  stripesink.WebhookConfig
		says []string
	}{
		"nothing":       {stripesink.WebhookConfig{}, []string{"Secrets is empty", "Reopen is nil"}},
		"empty secret":  {stripesink.WebhookConfig{Secrets: []string{secret, ""}, Reopen: reopen}, []string{"Secrets[1] is no signing secret"}},
		"prefix alone":  {stripesink.WebhookConfig{Secrets: []string{"whsec_"}, Reopen: reopen}, []string{"Secrets[0]"}},
		"API key":       {stripesink.WebhookConfig{Secrets: []string{testKey}, Reopen: reopen}, []string{"Secrets[0]"}},
		"with newline":  {stripesink.WebhookConfig{Secrets: []string{secret + "\n"}, Reopen: reopen}, []string{"Secrets[0]"}},
		"without calls": {stripesink.WebhookConfig{Secrets: []string{secret}}, []string{"Reopen is nil"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				err, ok := recover().(error)
				require.True(t, ok)
				for _, words := range test.says {
					require.ErrorContains(t, err, words)
				}
				require.NotContains(t, err.Error(), "canary")
			}()
			s.Webhook(test.cfg)
		})
	}
	faulty := stripesink.New(stripesink.Config{Key: testKey}).Webhook(stripesink.WebhookConfig{
		Secrets: []string{secret}, Reopen: reopen, Logger: slog.New(slog.DiscardHandler),
	})
	require.Equal(t, 500, deliver(faulty, secret, reportOf("evt_1", 1, "a"), time.Now()).Code)
}
