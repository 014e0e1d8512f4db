package httpsink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/inprocess/meter/sink"
)

// Handler is the server's half: it takes what a [Sink] sends, in the protocol's own
// form or as CloudEvents, and hands it to a store. Create it with [NewHandler].
//
// It believes only what one of the secrets has signed within HandlerConfig.MaxAge. It
// answers "delivered" for a record only after the store has returned nil for it. While
// a request deals with an ID, another one with the same ID waits; what comes again
// then is the store's to know, for only the store's memory survives a crash.
//
// A store's rejection or postponement is quoted to the sender; what else it says is
// only logged.
//
// Concurrency: safe.
type Handler struct {
	cfg   HandlerConfig
	store *store
	turns turns
	slots chan struct{}
}

// NewHandler returns a handler for cfg, which it copies. Serve it under TLS, or behind
// what ends TLS, at one path.
//
// Errors: every fault of cfg, joined, by the name of its field; never with a secret in
// it.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	cfg.Secrets = slices.Clone(cfg.Secrets)
	return &Handler{cfg: cfg, store: newStore(cfg.Store), slots: make(chan struct{}, cfg.MaxRequests)}, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		h.refuse(w, r, refusal{http.StatusServiceUnavailable, "busy", errors.New("too many requests at a time")})
		return
	}
	entries, kind, refused := h.read(w, r)
	if refused.err != nil {
		h.refuse(w, r, refused)
		return
	}
	results, err := h.deal(r.Context(), entries)
	if err != nil {
		h.refuse(w, r, refusal{http.StatusServiceUnavailable, "busy", err})
		return
	}
	h.answer(w, results, kind != jsonType)
}

// refusal is why a request was not dealt with at all.
type refusal struct {
	status int
	reason string
	err    error
}

// read returns the records of a request that a secret has signed.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (entries []entry, kind string, refused refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, "", refusal{http.StatusMethodNotAllowed, "method", errors.New("only POST")}
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != jsonType && kind != eventsType && kind != eventType {
		return nil, "", refusal{http.StatusUnsupportedMediaType, "media-type", fmt.Errorf("Content-Type must be %s, %s or %s", jsonType, eventsType, eventType)}
	}
	signed, err := readSignature(r.Header)
	if err != nil {
		return nil, "", refusal{http.StatusUnauthorized, "signature", err}
	}
	body, refused := h.body(w, r)
	if refused.err != nil {
		return nil, "", refused
	}
	if !signed.by(h.cfg.Secrets, body) {
		return nil, "", refusal{http.StatusUnauthorized, "signature", errWrongMAC}
	}
	if now := time.Now(); signed.age(now) > h.cfg.MaxAge {
		return nil, "", refusal{http.StatusUnauthorized, "stale", fmt.Errorf(
			"signed at %d, while it is %d here: that is more than %v, so one of the two clocks is wrong", signed.at, now.Unix(), h.cfg.MaxAge)}
	}
	switch kind {
	case jsonType:
		entries, err = decodeBatch(body)
	default:
		entries, err = decodeEvents(body, kind == eventType)
	}
	if err == nil {
		err = distinct(entries)
	}
	if err != nil {
		return nil, "", refusal{http.StatusBadRequest, "malformed", err}
	}
	if len(entries) > mostBatch {
		return nil, "", refusal{http.StatusRequestEntityTooLarge, "too-large", fmt.Errorf("%d records: at most %d", len(entries), mostBatch)}
	}
	return entries, kind, refusal{}
}

// body reads what is within bounds. Nobody has been believed yet, so it waits for slow
// senders only so long.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, refusal) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // where it can't be set, the server's own timeouts hold
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxBody))
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
		return body, refusal{}
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, refusal{http.StatusRequestEntityTooLarge, "too-large", fmt.Errorf("the body has more than %d bytes", h.cfg.MaxBody)}
	}
	return nil, refusal{http.StatusBadRequest, "unreadable", errors.New("the body broke off")}
}

// distinct refuses IDs that can't be answered for, and IDs that come twice.
func distinct(entries []entry) error {
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		if !plainID(e.ID) {
			return fmt.Errorf("the ID of record %d is not 1 to 64 bytes of [0-9a-z-]", i+1)
		}
		if seen[e.ID] {
			return fmt.Errorf("ID %s is there twice", e.ID)
		}
		seen[e.ID] = true
	}
	return nil
}

// deal stores what can be stored and returns a result for each entry. Its error says
// that nothing was.
func (h *Handler) deal(ctx context.Context, entries []entry) ([]resultJSON, error) {
	results := make([]resultJSON, len(entries))
	records, index := make([]sink.Record, 0, len(entries)), make([]int, 0, len(entries))
	for i, e := range entries {
		if e.fault == nil {
			e.fault = h.store.refuse(e.Record)
		}
		if e.fault != nil {
			results[i] = result(e.ID, fmt.Errorf("%w: %w", sink.ErrRejected, e.fault))
			continue
		}
		records, index = append(records, e.Record), append(index, i)
	}
	if len(records) == 0 {
		return results, nil
	}
	wait, cancel := context.WithTimeout(ctx, h.store.limits.Timeout)
	defer cancel()
	end, err := h.turns.take(wait, records)
	if err != nil {
		return nil, errors.New("the same records are being dealt with")
	}
	defer end() // also if the store panics
	for n, err := range h.store.put(ctx, records) {
		i := index[n]
		results[i] = result(records[n].ID, err)
		if s := results[i].Status; s == inDoubt || s == notApplied {
			h.cfg.Logger.Error("httpsink: the store failed", "record", records[n].ID, "outcome", s, "cause", err)
		}
	}
	return results, nil
}

// refuse answers that nothing was applied, and why.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, why refusal) {
	h.cfg.Logger.Warn("httpsink: request refused", "status", why.status, "reason", why.reason, "cause", why.err, "remote", r.RemoteAddr)
	writeProblem(w, problemJSON{Status: why.status, Reason: why.reason, Detail: cut(why.err.Error()), Outcome: notApplied}, busyDelay)
}

// LogValue is the handler's configuration, without the secrets.
func (h *Handler) LogValue() slog.Value { return h.cfg.LogValue() }

// Format prints what LogValue says, whatever the verb.
func (h *Handler) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.cfg.LogValue().String()) }

// busyDelay is what senders are asked to wait when nothing else is known.
const busyDelay = 5 * time.Second

func retryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.FormatInt(max(wholeSeconds(d), 1), 10))
}
