package stripesink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/internal/stripeapi"
)

const (
	// maxDelivery bounds the body of a delivery, in bytes. A thin event has a few
	// hundred.
	maxDelivery = 64 << 10
	// maxSeen bounds how many event IDs are remembered.
	maxSeen = 4096
	// handlingTimeout bounds the work on one delivery: Stripe waits for the answer.
	handlingTimeout = 15 * time.Second
)

// WebhookConfig of [Sink.Webhook]. Secrets and Reopen are required.
//
// Concurrency: a plain value; Webhook copies it.
type WebhookConfig struct {
	// Secrets are the signing secrets ("whsec_…") of the event destination, any of
	// which may have signed a delivery: several while one is being replaced. Required.
	Secrets []string `json:"-"`

	// Reopen takes a record that was delivered back into quarantine, as rejected for a
	// reason: as a rule it calls Meter.Reopen with the route's name. It must be safe to
	// repeat for one record. [sink.ErrUnknownRecord] is final; after any other error
	// Stripe sends the event again, for some days. Required.
	Reopen func(ctx context.Context, recordID, reason string) error

	// Logger gets what was reported. nil: slog.Default().
	Logger *slog.Logger
}

func (c WebhookConfig) validate() error {
	var faults []error
	if len(c.Secrets) == 0 {
		faults = append(faults, errors.New(`stripesink: WebhookConfig.Secrets is empty: use the event destination's signing secret`))
	}
	for i, secret := range c.Secrets {
		if err := stripeapi.CheckSecret(secret); err != nil {
			faults = append(faults, fmt.Errorf("stripesink: WebhookConfig.Secrets[%d] %w", i, err))
		}
	}
	if c.Reopen == nil {
		faults = append(faults, errors.New("stripesink: WebhookConfig.Reopen is nil: call Meter.Reopen in it"))
	}
	return errors.Join(faults...)
}

// Format prints nothing of the secrets, whatever the verb.
func (c WebhookConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Secrets:[%d secrets]}", len(c.Secrets))
}

// LogValue is what [WebhookConfig.Format] prints.
func (c WebhookConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Webhook returns the handler for what Stripe reports about events that it took with
// a 200 and then could not bill: it reopens their records. Have Stripe send the thin
// events v1.billing.meter.error_report_triggered and v1.billing.meter.no_meter_found
// to it; others are answered 200 and ignored, and so are events of the other mode, live
// or test, than the key's.
//
// A report counts all errors of about ten seconds and names only samples of them. The
// log says how many were not named: [Sink.Reconcile] finds whom they concern.
//
// Only POST with a valid signature gets further than a refusal: at most 64 KiB, signed
// within the last 5 minutes, or dated at most 5 minutes ahead. Of the event only its
// ID is believed and the rest asked from Stripe, unless the delivery brings it along; a
// restricted key needs read access to events. An event that was dealt with is not
// dealt with again while its ID is among the last 4,096 of this process.
//
// It answers 200, or 400 to what is no signed event, 405 and 413, 409 while the same
// event is being dealt with, and 500 if Stripe shall send it again. No answer and no
// log line holds a secret.
//
// It panics if cfg is faulty, as [http.ServeMux] does about a pattern, and names every
// faulty field. With a faulty configuration of the sink every delivery is answered 500.
//
// Blocking: each delivery for as long as Stripe's answer and Reopen take, at most 15 s.
// Concurrency: the handler is safe, and calls Reopen concurrently.
func (s *Sink) Webhook(cfg WebhookConfig) http.Handler {
	if err := cfg.validate(); err != nil {
		panic(err)
	}
	h := &webhookHandler{sink: s, secrets: append([]string(nil), cfg.Secrets...), reopen: cfg.Reopen, log: cfg.Logger}
	if h.log == nil {
		h.log = slog.Default()
	}
	h.events, _ = lru.New[string, bool](maxSeen) // fails for sizes below 1 only
	return h
}

type webhookHandler struct {
	sink    *Sink
	secrets []string
	reopen  func(ctx context.Context, recordID, reason string) error
	log     *slog.Logger
	events  *lru.Cache[string, bool] // event ID, and whether it was dealt with; false: it is being
}

// ServeHTTP implements [http.Handler].
func (h *webhookHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := stripeapi.ReadDelivery(w, r, h.secrets, maxDelivery)
	if err != nil {
		h.log.Warn("stripesink: webhook delivery refused", "cause", err)
		return
	}
	e, err := decodeEvent(body)
	if err != nil {
		h.log.Warn("stripesink: webhook delivery refused", "cause", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !e.reportsErrors() {
		return
	}
	w.WriteHeader(h.once(r.Context(), e))
}

// once deals with e unless that was or is being done, and returns the status to answer.
func (h *webhookHandler) once(ctx context.Context, e event) int {
	done, known, _ := h.events.PeekOrAdd(e.ID, false)
	switch {
	case done:
		return http.StatusOK
	case known:
		return http.StatusConflict
	}
	finished := false
	defer func() { // also if Reopen panics
		if !finished {
			h.events.Remove(e.ID)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, handlingTimeout)
	defer cancel()
	if err := h.handle(ctx, e); err != nil {
		h.log.Error("stripesink: webhook event not dealt with; Stripe will send it again", "event", e.ID, "cause", err)
		return http.StatusInternalServerError
	}
	finished = true
	h.events.Add(e.ID, true)
	return http.StatusOK
}
