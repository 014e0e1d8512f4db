package stripelicense_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const secret = "whsec_canary4711"

// hook is a webhook's handler, and what it did.
type hook struct {
	http.Handler
	forgotten
	log bytes.Buffer // of one delivery at a time
}

func newHook(c *stripelicense.Checker) *hook {
	h := &hook{}
	h.Handler = c.Webhook(stripelicense.WebhookConfig{
		Secrets: []string{"whsec_other", secret}, Cache: &h.forgotten, Logger: slog.New(slog.NewTextHandler(&h.log, nil)),
	})
	return h
}

func (h *hook) deliver(d stripetest.Delivery) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, d.Request("http://vendor.example/stripe"))
	return w.Code
}

func signed(body string) stripetest.Delivery {
	return stripetest.Delivery{Body: []byte(body), Signature: stripetest.Sign(secret, time.Now(), []byte(body))}
}

func TestWebhookForgets(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.SubjectMetadata = "account" })
	h := newHook(a.Checker)
	sub := a.subscribe(nil)
	all := []string{"key " + licenseKey, "subject acct-7", "subject cus_1"}
	for _, what := range []string{"created", "updated", "paused", "resumed", "deleted", "trial_will_end"} {
		require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription."+what, sub.ID)))
		require.Equal(t, all, h.take(), what)
	}
	a.entitle(lookupKey)
	require.Equal(t, 200, h.deliver(a.Notify(secret, "entitlements.active_entitlement_summary.updated", customer)))
	require.Equal(t, all[2:], h.take())
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.deleted", customer)))
	require.Equal(t, all[2:], h.take())
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.updated", customer)))
	require.Empty(t, h.take(), "it changes no verdict")
	require.Zero(t, a.Requests(), "the next check asks")
	require.Empty(t, h.log.String())
}

// Under a KeySecret no event has a license key.
func TestWebhookWithKeySecret(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.KeySecret = strings.Repeat("canary", 8) })
	h := newHook(a.Checker)
	sub := a.subscribe(nil)
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.updated", sub.ID)))
	require.Equal(t, []string{"subject cus_1"}, h.take())
}

// Search finds a new subscription a minute later, the webhook tells of it at once.
func TestWebhookIsAheadOfSearch(t *testing.T) {
	t.Parallel()
	for _, hashed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			value := licenseKey
			a := newAccount(t, func(c *stripelicense.Config) {
				c.SubjectMetadata = "account"
				if hashed {
					c.KeySecret = strings.Repeat("x", 32)
					value = stripelicense.KeyDigest(c.KeySecret, license.NewKey(licenseKey))
				}
			})
			a.SearchLag = time.Hour
			h := newHook(a.Checker)
			sub := a.subscribe(func(s *stripetest.Subscription) { s.Metadata["license_key"] = value })
			a.wantDenied(t, basic(byKey()), license.NotFound, "")
			require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.created", sub.ID)))
			a.wantAllowed(t, basic(byKey()))
			a.wantAllowed(t, basic(license.Query{Subject: "acct-7"}))

			// What the event said is not believed beyond that.
			event := a.Notify(secret, "customer.subscription.updated", sub.ID)
			a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata = nil })
			require.Equal(t, 200, h.deliver(event))
			a.wantDenied(t, basic(byKey()), license.NotFound, "")
		})
	}
}

// Of what an event has told, a check takes only what is the caller's own.
func TestWebhookTellsOfAnother(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	h := newHook(a.Checker)
	a.AddCustomer(stripetest.Customer{ID: "cus_2"})
	other := a.subscribe(func(s *stripetest.Subscription) { s.Customer = "cus_2" })
	a.subscribe(nil)
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.updated", other.ID)))
	a.wantUnknown(t, basic(byKey()), "several customers, cus_1, cus_2")
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.updated", other.ID)))
	a.wantAllowed(t, basic(license.Query{Key: license.NewKey(licenseKey), Subject: customer}))
}

// What has been searched for once is not, because of an event, again.
func TestWebhookOfAKnownSubscription(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	h := newHook(a.Checker)
	sub := a.subscribe(nil)
	for range 3 {
		require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.updated", sub.ID)))
		a.wantAllowed(t, basic(byKey()))
	}
	require.Equal(t, 1, a.RequestsTo(search))
}

// What ends does not lead away from what goes on.
func TestWebhookOfTheEndOfAnother(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	h := newHook(a.Checker)
	old := a.subscribe(func(s *stripetest.Subscription) { s.Status = "canceled" })
	a.subscribe(nil)
	a.wantAllowed(t, basic(byKey()))
	require.Equal(t, 200, h.deliver(a.Notify(secret, "customer.subscription.deleted", old.ID)))
	a.wantAllowed(t, basic(byKey()))
	require.Equal(t, 1, a.RequestsTo(search))
}

// Events overtake each other: the state is always the one that Stripe has now.
func TestEventsOutOfOrder(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	verdicts := cache.New(cache.Config{Checker: a.Checker, Fresh: time.Hour})
	h := a.Checker.Webhook(stripelicense.WebhookConfig{Secrets: []string{secret}, Cache: verdicts, Logger: slog.New(slog.DiscardHandler)})
	status := func() license.Status {
		v, err := verdicts.Check(t.Context(), basic(byKey()))
		require.NoError(t, err)
		return v.Status
	}
	deliver := func(d stripetest.Delivery) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, d.Request("http://vendor.example/stripe"))
		require.Equal(t, 200, w.Code)
	}
	require.Equal(t, license.Denied, status())
	sub := a.subscribe(nil)
	require.Equal(t, license.Denied, status(), "from the cache")
	active := a.Notify(secret, "customer.subscription.created", sub.ID)
	deliver(active)
	require.Equal(t, license.Allowed, status())
	a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "unpaid" })
	require.Equal(t, license.Allowed, status(), "from the cache")
	deliver(a.Notify(secret, "customer.subscription.updated", sub.ID))
	require.Equal(t, license.Denied, status())
	deliver(active) // "at least once"
	require.Equal(t, license.Denied, status())
	a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "active" })
	deliver(active)
	require.Equal(t, license.Allowed, status())
	require.NoError(t, verdicts.Close())
}

// The event about entitlements lists ten of them, so none is looked for there.
func TestEntitlementEventsAreTruncated(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(nil)
	verdicts := cache.New(cache.Config{Checker: a.Checker})
	h := a.Checker.Webhook(stripelicense.WebhookConfig{Secrets: []string{secret}, Cache: verdicts})
	a.entitle(lookupKey)
	for i := range 20 {
		a.entitle(fmt.Sprint("feature_", i))
	}
	d := a.Notify(secret, "entitlements.active_entitlement_summary.updated", customer)
	require.NotContains(t, string(d.Body), lookupKey)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, d.Request("http://vendor.example/stripe"))
	require.Equal(t, 200, w.Code)
	v, err := verdicts.Check(t.Context(), bySubject())
	require.NoError(t, err)
	require.Equal(t, license.Allowed, v.Status)
	require.NoError(t, verdicts.Close())
}

func TestWebhookRefuses(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	sub := a.subscribe(nil)
	good := a.Notify(secret, "customer.subscription.updated", sub.ID)
	at := func(d time.Duration) stripetest.Delivery {
		return stripetest.Delivery{Body: good.Body, Signature: stripetest.Sign(secret, time.Now().Add(d), good.Body)}
	}
	for name, test := range map[string]struct {
		d    stripetest.Delivery
		code int
	}{
		"unsigned":           {stripetest.Delivery{Body: good.Body}, 400},
		"empty secret":       {stripetest.Delivery{Body: good.Body, Signature: stripetest.Sign("", time.Now(), good.Body)}, 400},
		"another secret":     {a.Notify("whsec_foreign", "customer.subscription.updated", sub.ID), 400},
		"changed":            {stripetest.Delivery{Body: append([]byte(" "), good.Body...), Signature: good.Signature}, 400},
		"old":                {at(-6 * time.Minute), 400},
		"of the future":      {at(6 * time.Minute), 400},
		"too large":          {signed(`{"id":"evt_1","type":"x","x":"` + strings.Repeat("x", 1<<20) + `"}`), 413},
		"no JSON":            {signed("canary"), 400},
		"no ID":              {signed(`{"type":"customer.deleted"}`), 400},
		"no type":            {signed(`{"id":"evt_1"}`), 400},
		"no object":          {signed(`{"id":"evt_1","type":"customer.deleted"}`), 400},
		"no customer":        {signed(`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"object":"subscription","id":"sub_1"}}}`), 400},
		"no subscription":    {signed(`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"object":"subscription","customer":"cus_1"}}}`), 400},
		"odd customer":       {signed(`{"id":"evt_1","type":"customer.deleted","data":{"object":{"object":"customer","id":"canary 4711"}}}`), 400},
		"customer of number": {signed(`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"object":"subscription","customer":1}}}`), 400},
		"the other mode":     {signed(strings.Replace(string(good.Body), `"livemode": false`, `"livemode": true`, -1)), 200},
		"of no interest":     {signed(`{"id":"evt_1","type":"invoice.paid","data":{"object":[]}}`), 200},
		"thin":               {signed(`{"id":"evt_1","type":"v1.billing.meter.error_report_triggered","created":"2026-03-01T13:00:00.000Z"}`), 200},
	} {
		h := newHook(a.Checker)
		require.Equal(t, test.code, h.deliver(test.d), name)
		require.Empty(t, h.take(), name)
		requireClean(t, h.log.String())
		require.Equal(t, name == "of no interest" || name == "thin", h.log.Len() == 0, name)
	}
	h := newHook(a.Checker)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/stripe", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, 200, h.deliver(at(-4*time.Minute)))
	require.NotEmpty(t, h.take())
}

// Newer versions of the API, and endpoints that expand, look different.
func TestWebhookOfOtherVersions(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	h := newHook(a.Checker)
	require.Equal(t, 200, h.deliver(signed(`{"id":"evt_1","object":"event","api_version":"2026-08-26.x","created":"2026-08-26T00:00:00Z",
		"type":"customer.subscription.updated","data":{"object":{"object":"subscription","id":"sub_1","customer":{"id":"cus_1","object":"customer"},
		"items":{"data":[{"current_period_end":1}]}},"previous_attributes":{"status":"active"}}}`)))
	require.Equal(t, []string{"subject cus_1"}, h.take()[1:])
}

func TestWebhookConfig(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	require.PanicsWithError(t, "stripelicense: WebhookConfig.Secrets is empty: use the endpoint's signing secret\n"+
		"stripelicense: WebhookConfig.Cache is nil: use the cache that the Checker is in", func() {
		a.Checker.Webhook(stripelicense.WebhookConfig{})
	})
	require.PanicsWithError(t, "stripelicense: WebhookConfig.Cache is nil: use the cache that the Checker is in", func() {
		a.Checker.Webhook(stripelicense.WebhookConfig{Secrets: []string{secret}, Cache: (*cache.Cache)(nil)})
	})
	for _, bad := range []string{"", "whsec_", "sk_test_canary", "whsec_canary 4711"} {
		require.PanicsWithError(t, `stripelicense: WebhookConfig.Secrets[1] is no signing secret: it starts with "whsec_" and has no spaces`, func() {
			a.Checker.Webhook(stripelicense.WebhookConfig{Secrets: []string{secret, bad}, Cache: &forgotten{}})
		})
	}
	faulty := newHook(stripelicense.NewChecker(stripelicense.Config{Key: "pk_test_canary4711"}))
	sub := a.subscribe(nil)
	require.Equal(t, 500, faulty.deliver(a.Notify(secret, "customer.subscription.updated", sub.ID)))
	requireClean(t, faulty.log.String())
}
