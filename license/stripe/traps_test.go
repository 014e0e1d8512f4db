package stripelicense_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

type (
	httpWriter  = http.ResponseWriter
	httpRequest = http.Request
)

func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// Paused subscriptions keep their entitlements.
func TestEntitlementAloneIsNotEnough(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(func(s *stripetest.Subscription) { s.Status = "paused" })
	a.entitle(lookupKey)
	for _, q := range both() {
		a.wantDenied(t, q, license.Unpaid, customer)
	}
	require.Zero(t, a.RequestsTo(listEnt), "what can't change the verdict is not read")
}

// A feature added to a product does not reach those who have subscribed before; so a
// subscription to the product is not enough.
func TestSubscriptionAloneIsNotEnough(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(nil)
	a.entitle("something_else", "TAX_REPORTS")
	for _, q := range both() {
		a.wantDenied(t, q, license.NotEntitled, customer)
		a.wantAllowed(t, basic(q))
	}
	a.entitle(lookupKey)
	for _, q := range both() {
		a.wantAllowed(t, q)
	}
	a.RemoveEntitlement(customer, lookupKey)
	for _, q := range both() {
		a.wantDenied(t, q, license.NotEntitled, customer)
	}
}

// An entitlement may stand behind the first page.
func TestEntitlementsArePaginated(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(nil)
	a.entitle(lookupKey) // the oldest comes last
	for i := range 250 {
		a.entitle(fmt.Sprint("feature_", i))
	}
	a.wantAllowed(t, bySubject())
	require.Equal(t, 3, a.RequestsTo(listEnt))
}

// A page that fails would else end the list, and look like "not entitled".
func TestFailedPageIsUnknown(t *testing.T) {
	t.Parallel()
	for _, answer := range []stripetest.Answer{
		stripetest.Error500, stripetest.HTML502, stripetest.Throttled, stripetest.Truncated, stripetest.Garbled, stripetest.Redirect,
	} {
		t.Run(fmt.Sprint(answer), func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, nil)
			a.subscribe(nil)
			a.entitle(lookupKey)
			for i := range 150 {
				a.entitle(fmt.Sprint("feature_", i))
			}
			a.Script(stripetest.Fault{On: listEnt}, stripetest.Fault{On: listEnt, Answer: answer, Applied: answer == stripetest.Truncated})
			a.wantUnknown(t, bySubject(), "listing the entitlements of cus_1")
			require.Equal(t, 1, a.Fired())
			require.Equal(t, 2, a.RequestsTo(listEnt), "and no retry")
			a.wantAllowed(t, bySubject())
		})
	}
}

// A list that claims to go on, and shows nothing, was not read to its end.
func TestListThatDoesNotEndIsUnknown(t *testing.T) {
	t.Parallel()
	for name, entitlements := range map[string]string{
		"empty page": `{"object":"list","has_more":true,"data":[]}`,
		"same page":  `{"object":"list","has_more":true,"data":[{"id":"ent_1","lookup_key":"x"}]}`,
		"no ID":      `{"object":"list","has_more":false,"data":[{"lookup_key":"x"}]}`,
		"null":       `{"object":"list","has_more":false,"data":[null]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := answers(t, func(w httpWriter, r *httpRequest) {
				if r.URL.Path != "/v1/subscriptions" {
					fmt.Fprint(w, entitlements)
					return
				}
				fmt.Fprint(w, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active"}]}`)
			}, nil)
			a.wantUnknown(t, bySubject(), "the answer is incomplete")
		})
	}
	endless := 0
	a := answers(t, func(w httpWriter, r *httpRequest) {
		endless++
		fmt.Fprintf(w, `{"object":"list","has_more":true,"data":[{"object":"subscription","id":"sub_%d","customer":"cus_1","status":"canceled"}]}`, endless)
	}, nil)
	a.wantUnknown(t, bySubject(), "more than 5000")
	require.Equal(t, 50, endless)
}

// Search is a minute behind: neither what it finds nor what it shows is news.
func TestSearchIsBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.SearchLag = time.Minute
		sub := a.subscribe(nil)
		q := basic(byKey())
		a.wantDenied(t, q, license.NotFound, "")
		time.Sleep(time.Minute)
		a.wantAllowed(t, q)

		a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata["license_key"] = "LK-new" })
		a.wantDenied(t, q, license.NotFound, "")
		fresh := &account{Checker: a.another(nil)}
		fresh.wantDenied(t, q, license.NotFound, "") // though Stripe still finds it
		a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata["license_key"] = licenseKey })
		time.Sleep(time.Minute)
		a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "unpaid" })
		fresh.wantDenied(t, q, license.Unpaid, customer)
	})
}

// What search shows may be as old as what it finds; only what is final is taken from it.
func TestSearchResultsAreReadAgain(t *testing.T) {
	t.Parallel()
	const shows = `{"object":"search_result","data":[
		{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active","metadata":{"license_key":"LK/canary+0815=A:b"}},
		{"object":"subscription","id":"sub_2","customer":"cus_1","status":"canceled","metadata":{"license_key":"LK/canary+0815=A:b"}}]}`
	var asked []string
	a := answers(t, func(w httpWriter, r *httpRequest) {
		asked = append(asked, r.URL.Path)
		if r.URL.Path == "/v1/subscriptions/search" {
			fmt.Fprint(w, shows)
			return
		}
		fmt.Fprint(w, `{"object":"subscription","id":"sub_1","customer":"cus_1","status":"unpaid","metadata":{"license_key":"LK/canary+0815=A:b"}}`)
	}, nil)
	a.wantDenied(t, byKey(), license.Unpaid, customer)
	require.Equal(t, []string{"/v1/subscriptions/search", "/v1/subscriptions/sub_1"}, asked)
}

// Reads are limited, and searches more so: a known key is read by ID.
func TestKnownKeysAreNotSearchedFor(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	sub := a.subscribe(nil)
	a.entitle(lookupKey)
	for range 3 {
		a.wantAllowed(t, byKey())
	}
	require.Equal(t, 1, a.RequestsTo(search))
	require.Equal(t, 3, a.RequestsTo(getOne))
	require.Equal(t, 3, a.RequestsTo(listEnt))

	a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
	a.wantDenied(t, byKey(), license.Expired, customer)
	require.Equal(t, 2, a.RequestsTo(search), "there may be another one by now")
	a.subscribe(nil)
	a.wantAllowed(t, byKey())
	a.wantAllowed(t, byKey())
	require.Equal(t, 3, a.RequestsTo(search), "and it is known from now on")
}

// A key reaches the search as one value, whatever it holds.
func TestKeysAreNoQueries(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(nil)
	for _, key := range []string{`x' OR status:'active`, `x\`, "x'", `x"`, "x y", "x\n", "ключ", "*", "x~"} {
		a.wantDenied(t, license.Query{Key: license.NewKey(key)}, license.NotFound, "")
	}
	require.Zero(t, a.Requests())
}

func TestTooManyHitsAreUnknown(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	for range 101 {
		a.subscribe(func(s *stripetest.Subscription) { s.Status = "canceled" })
	}
	a.wantUnknown(t, byKey(), `more than 100 hold one value in metadata field "license_key"`)
}

// The SDK reads versions of the API in which periods are the subscription's; a gateway
// that answers in a newer one has no period there, which no verdict may rest on.
func TestPeriodsMayBeElsewhere(t *testing.T) {
	t.Parallel()
	a := answers(t, reply(200, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active",
		"cancel_at_period_end":true,"items":{"object":"list","data":[{"id":"si_1","current_period_end":1}]}}]}`), nil)
	require.Zero(t, a.wantAllowed(t, basic(bySubject())).Until)
}

func TestKeySecret(t *testing.T) {
	t.Parallel()
	const secret = "canary-canary-canary-canary-4711"
	a := newAccount(t, func(c *stripelicense.Config) { c.KeySecret = secret })
	key := license.NewKey("any key' will \"do, ключ")
	digest := stripelicense.KeyDigest(secret, key)
	require.Regexp(t, "^[0-9a-f]{64}$", digest)
	require.Equal(t, "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
		stripelicense.KeyDigest("key", license.NewKey("The quick brown fox jumps over the lazy dog")))
	a.subscribe(func(s *stripetest.Subscription) { s.Metadata = map[string]string{"license_key": digest} })
	a.subscribe(func(s *stripetest.Subscription) { s.Metadata = map[string]string{"license_key": "LK-in-clear"} })
	a.wantAllowed(t, basic(license.Query{Key: key}))
	for _, other := range []string{digest, "LK-in-clear", "any key"} {
		a.wantDenied(t, basic(license.Query{Key: license.NewKey(other)}), license.NotFound, "")
	}
}
