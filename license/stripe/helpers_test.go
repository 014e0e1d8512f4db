package stripelicense_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const (
	apiKey     = "sk_test_canary4711"
	licenseKey = "LK/canary+0815=A:b" // with characters that a URL escapes
	customer   = "cus_1"
	feature    = "tax-report"
	lookupKey  = "tax_reports"

	getOne  = "GET /v1/subscriptions/{id}"
	list    = "GET /v1/subscriptions"
	search  = "GET /v1/subscriptions/search"
	listEnt = "GET /v1/entitlements/active_entitlements"
)

// account is a Stripe with one customer, a product and its price, and a checker on it.
type account struct {
	*stripetest.Server
	*stripelicense.Checker
	price  string
	client *http.Client
}

func newAccount(t *testing.T, change func(*stripelicense.Config)) *account {
	t.Helper()
	a := &account{Server: stripetest.New()}
	client, stop := a.Pipe()
	t.Cleanup(stop)
	a.client = client
	a.AddCustomer(stripetest.Customer{ID: customer})
	a.AddProduct(stripetest.Product{ID: "prod_1"})
	a.price = a.AddPrice(stripetest.Price{Product: "prod_1"}).ID
	a.Checker = a.another(change)
	require.NoError(t, a.Validate())
	return a
}

// another is a second checker, as of another process.
func (a *account) another(change func(*stripelicense.Config)) *stripelicense.Checker {
	cfg := stripelicense.Config{
		Key: apiKey, BaseURL: stripetest.URL, HTTPClient: a.client, KeyMetadata: "license_key",
		Features: map[string]string{feature: lookupKey, "basic": ""},
	}
	if change != nil {
		change(&cfg)
	}
	return stripelicense.NewChecker(cfg)
}

// subscribe gives the customer a subscription that holds the license key.
func (a *account) subscribe(change func(*stripetest.Subscription)) stripetest.Subscription {
	sub := stripetest.Subscription{
		Customer: customer, Metadata: map[string]string{"license_key": licenseKey, "account": "acct-7"},
		Items: []stripetest.Item{{Price: a.price}},
	}
	if change != nil {
		change(&sub)
	}
	return a.AddSubscription(sub)
}

func (a *account) entitle(keys ...string) {
	for _, key := range keys {
		a.AddEntitlement(stripetest.Entitlement{Customer: customer, LookupKey: key})
	}
}

func byKey() license.Query {
	return license.Query{Key: license.NewKey(licenseKey), Feature: feature}
}

func bySubject() license.Query {
	return license.Query{Subject: customer, Feature: feature}
}

// both are the ways to ask about the same subscription.
func both() map[string]license.Query {
	return map[string]license.Query{"by key": byKey(), "by customer": bySubject()}
}

func basic(q license.Query) license.Query {
	q.Feature = "basic"
	return q
}

func (a *account) wantAllowed(t *testing.T, q license.Query) license.Verdict {
	t.Helper()
	v, err := a.Check(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, license.Allowed, v.Status, "%+v", v)
	require.Equal(t, customer, v.Subject)
	require.Empty(t, v.Reason)
	require.Nil(t, v.Quota)
	return v
}

func (a *account) wantDenied(t *testing.T, q license.Query, reason license.Reason, subject string) {
	t.Helper()
	v, err := a.Check(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, license.Verdict{Status: license.Denied, Reason: reason, Subject: subject}, v)
}

// wantUnknown requires an error that says something, and no verdict with it.
func (a *account) wantUnknown(t *testing.T, q license.Query, says ...string) error {
	t.Helper()
	v, err := a.Check(t.Context(), q)
	require.Error(t, err)
	require.Zero(t, v, "unknown is never a denial")
	for _, text := range says {
		require.ErrorContains(t, err, text)
	}
	requireClean(t, err)
	return err
}

func requireClean(t *testing.T, said any) {
	t.Helper()
	for _, text := range []string{fmt.Sprint(said), fmt.Sprintf("%+v", said), fmt.Sprintf("%#v", said), fmt.Sprintf("%q", said)} {
		require.NotContains(t, text, "canary")
		require.NotContains(t, text, "4711")
		require.NotContains(t, text, "0815")
	}
}

func retryAfter(t *testing.T, err error) time.Duration {
	t.Helper()
	r, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	require.True(t, ok, "%T", err)
	return r.RetryAfter()
}

// answers is a Stripe that says what a test wants.
func answers(t *testing.T, handler http.HandlerFunc, change func(*stripelicense.Config)) *account {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	a := &account{client: server.Client()}
	a.Checker = a.another(func(c *stripelicense.Config) {
		c.BaseURL = server.URL
		if change != nil {
			change(c)
		}
	})
	require.NoError(t, a.Validate())
	return a
}

// forgotten notes what a cache was asked to forget.
type forgotten struct {
	mu   sync.Mutex
	said []string
}

func (f *forgotten) Invalidate(k license.Key) { f.note("key " + k.Reveal()) }

func (f *forgotten) InvalidateSubject(subject string) { f.note("subject " + subject) }

func (f *forgotten) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, what)
}

func (f *forgotten) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := f.said
	f.said = nil
	return said
}

var _ interface {
	Check(context.Context, license.Query) (license.Verdict, error)
} = (*stripelicense.Checker)(nil)
