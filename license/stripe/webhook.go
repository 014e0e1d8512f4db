package stripelicense

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/license"
)

// maxDelivery bounds the body of a delivery, in bytes: an event shows a whole
// subscription.
const maxDelivery = 1 << 20

// Cache forgets verdicts; a cache.Cache does.
//
// Concurrency: must be safe.
type Cache interface {
	Invalidate(key license.Key)
	InvalidateSubject(subject string)
}

// WebhookConfig of [Checker.Webhook]. Secrets and Cache are required.
//
// Concurrency: a plain value; Webhook copies it.
type WebhookConfig struct {
	// Secrets are the signing secrets ("whsec_…") of the endpoint, any of which may have
	// signed a delivery: several while one is being replaced. Required.
	Secrets []string `json:"-"`

	// Cache forgets what it knows of customers whose subscriptions or entitlements have
	// changed. Required.
	Cache Cache

	// Logger gets what was refused. nil: slog.Default().
	Logger *slog.Logger
}

func (c WebhookConfig) validate() error {
	var faults []error
	if len(c.Secrets) == 0 {
		faults = append(faults, errors.New("stripelicense: WebhookConfig.Secrets is empty: use the endpoint's signing secret"))
	}
	for i, secret := range c.Secrets {
		if err := stripeapi.CheckSecret(secret); err != nil {
			faults = append(faults, fmt.Errorf("stripelicense: WebhookConfig.Secrets[%d] %w", i, err))
		}
	}
	if v := reflect.ValueOf(c.Cache); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		faults = append(faults, errors.New("stripelicense: WebhookConfig.Cache is nil: use the cache that the Checker is in"))
	}
	return errors.Join(faults...)
}

// Format prints nothing of the secrets, whatever the verb.
func (c WebhookConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Secrets:[%d secrets]}", len(c.Secrets))
}

// LogValue is what [WebhookConfig.Format] prints.
func (c WebhookConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Webhook returns the handler for events about what verdicts rest on: it has the cache
// forget them, so that the next check asks Stripe. Have Stripe send these to it, in any
// version of the API:
//
//	customer.subscription.created, .updated, .deleted, .paused, .resumed
//	entitlements.active_entitlement_summary.updated
//	customer.deleted
//
// Others are answered 200 and ignored, and so are events of the other mode, live or
// test, than the key's.
//
// Of an event only IDs are used, and which license key and subject a subscription
// holds, so that a key can be used at once which Stripe's search does not find yet.
// What the event says of a status or an entitlement is not believed: events overtake
// each other, and list ten entitlements at most. Events get lost, too: verdicts must
// end by themselves, see cache.Config.Fresh. A denial of a key that Stripe did not
// have is forgotten only if the subscription holds the key in clear; with a KeySecret it
// lasts for cache.Config.Negative.
//
// Only POST with a valid signature gets further than a refusal: at most 1 MiB, signed
// within the last 5 minutes, or dated at most 5 minutes ahead. An event that comes
// twice does no harm. The handler answers 200, or 400 to what is no signed event, 405
// and 413, and 500 if the Config of the checker is faulty. No answer and no log line
// holds a secret.
//
// It panics if cfg is faulty, as [http.ServeMux] does about a pattern, and names every
// faulty field.
//
// Blocking: each delivery for as long as the Cache does; no network.
// Concurrency: the handler is safe, and calls the Cache concurrently.
func (c *Checker) Webhook(cfg WebhookConfig) http.Handler {
	if err := cfg.validate(); err != nil {
		panic(err)
	}
	h := &webhookHandler{checker: c, secrets: slices.Clone(cfg.Secrets), cache: cfg.Cache, log: cfg.Logger}
	if h.log == nil {
		h.log = slog.Default()
	}
	return h
}

type webhookHandler struct {
	checker *Checker
	secrets []string
	cache   Cache
	log     *slog.Logger
}

// ServeHTTP implements [http.Handler].
func (h *webhookHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := stripeapi.ReadDelivery(w, r, h.secrets, maxDelivery)
	if err != nil {
		h.log.Warn("stripelicense: webhook delivery refused", "cause", err)
		return
	}
	if h.checker.faults != nil {
		h.log.Error("stripelicense: webhook event not dealt with; Stripe will send it again", "cause", h.checker.faults)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	e, err := decodeEvent(body)
	if err != nil {
		h.log.Warn("stripelicense: webhook delivery refused", "cause", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !e.matters() {
		return
	}
	if e.Livemode != stripeapi.Live(h.checker.cfg.Key) {
		h.log.Warn("stripelicense: webhook event ignored: it is of the other mode than the key", "event", e.ID, "livemode", e.Livemode)
		return
	}
	h.handle(e)
}

// handle learns first: a check that runs between the two finds what is new.
func (h *webhookHandler) handle(e event) {
	c, o := h.checker, e.object
	if o.isSubscription() {
		if !slices.Contains(final, o.Status) {
			c.keys.learn(o.ID, o.Metadata)
			c.subjects.learn(o.ID, o.Metadata)
		}
		if field := c.cfg.KeyMetadata; field != "" && c.cfg.KeySecret == "" {
			h.cache.Invalidate(license.NewKey(o.Metadata[field]))
		}
		if field := c.cfg.SubjectMetadata; field != "" {
			h.cache.InvalidateSubject(o.Metadata[field])
		}
	}
	h.cache.InvalidateSubject(o.customer())
}

// event is what is read of an event of API v1. Its object is read only if it matters,
// for that of other types looks different.
type event struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Livemode bool   `json:"livemode"`
	Data     struct {
		Object json.RawMessage `json:"object"`
	} `json:"data"`
	object object
}

// object is a subscription, a customer, or a summary of entitlements.
type object struct {
	ID       string            `json:"id"`
	Object   string            `json:"object"`
	Customer reference         `json:"customer"`
	Status   string            `json:"status"`
	Metadata map[string]string `json:"metadata"`
}

// reference is an ID, whether or not it was expanded.
type reference string

// UnmarshalJSON reads both forms.
func (r *reference) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(data, []byte("{")) {
		return json.Unmarshal(data, (*string)(r))
	}
	var expanded struct {
		ID string `json:"id"`
	}
	err := json.Unmarshal(data, &expanded)
	*r = reference(expanded.ID)
	return err
}

var eventID = regexp.MustCompile(`^evt_[A-Za-z0-9_]{1,250}$`)

func (e *event) matters() bool {
	return strings.HasPrefix(e.Type, "customer.subscription.") ||
		e.Type == "entitlements.active_entitlement_summary.updated" || e.Type == "customer.deleted"
}

func (o *object) isSubscription() bool { return o.Object == "subscription" }

func (o *object) customer() string {
	if o.Object == "customer" {
		return o.ID
	}
	return string(o.Customer)
}

// decodeEvent reads a delivery.
//
// Errors: what is wrong, without a word of the delivery.
func decodeEvent(body []byte) (event, error) {
	var e event
	if json.Unmarshal(body, &e) != nil {
		return event{}, errors.New("no event: not readable as JSON")
	}
	if !eventID.MatchString(e.ID) || e.Type == "" {
		return event{}, errors.New("no event: it lacks an ID or a type")
	}
	if !e.matters() {
		return e, nil
	}
	if json.Unmarshal(e.Data.Object, &e.object) != nil || !customerID.MatchString(e.object.customer()) {
		return event{}, errors.New("no event: it names no customer")
	}
	if e.object.isSubscription() && !subscriptionID.MatchString(e.object.ID) {
		return event{}, errors.New("no event: it names no subscription")
	}
	return e, nil
}
