package stripelicense_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/inprocess/meter/cache"
	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
)

// vendor is an account with one customer, who may use one feature.
func vendor() (srv *stripetest.Server, client *http.Client, stop func()) {
	srv = stripetest.New()
	srv.AddCustomer(stripetest.Customer{ID: "cus_1"})
	srv.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", Metadata: map[string]string{"license_key": "LK-2f9a"},
		Items: []stripetest.Item{{Price: srv.AddPrice(stripetest.Price{}).ID}},
	})
	srv.AddEntitlement(stripetest.Entitlement{Customer: "cus_1", LookupKey: "tax_reports"})
	client, stop = srv.Pipe()
	return srv, client, stop
}

func ExampleNewChecker() {
	_, client, stop := vendor()
	defer stop()
	checker := stripelicense.NewChecker(stripelicense.Config{
		Key:         "sk_test_51H7x", // from the environment or a secret store
		KeyMetadata: "license_key",
		Features:    map[string]string{"tax-report": "tax_reports", "export": "exports"},

		BaseURL: stripetest.URL, HTTPClient: client, // a Stripe for tests: leave these out
	})
	ctx, key := context.Background(), license.NewKey("LK-2f9a")
	for _, q := range []license.Query{
		{Key: key, Feature: "tax-report"},
		{Key: key, Feature: "export"},
		{Key: license.NewKey("LK-0000"), Feature: "tax-report"},
		{Subject: "cus_1", Feature: "tax-report"},
	} {
		v, err := checker.Check(ctx, q)
		fmt.Println(v.Status == license.Allowed, v.Subject, v.Reason, err)
	}
	// Output:
	// true cus_1  <nil>
	// false cus_1 not-entitled <nil>
	// false  not-found <nil>
	// true cus_1  <nil>
}

// The cache answers for hours, and asks again when Stripe tells of a change.
func ExampleChecker_Webhook() {
	srv, client, stop := vendor()
	defer stop()
	checker := stripelicense.NewChecker(stripelicense.Config{
		Key: "sk_test_51H7x", KeyMetadata: "license_key", BaseURL: stripetest.URL, HTTPClient: client,
	})
	verdicts := cache.New(cache.Config{Checker: checker, Fresh: 4 * time.Hour})
	defer verdicts.Close()
	mux := http.NewServeMux()
	mux.Handle("POST /stripe", checker.Webhook(stripelicense.WebhookConfig{
		Secrets: []string{"whsec_c2VjcmV0"}, // from the environment or a secret store
		Cache:   verdicts,
	}))

	check := func() {
		v, err := verdicts.Check(context.Background(), license.Query{Key: license.NewKey("LK-2f9a")})
		fmt.Println(v.Status == license.Allowed, v.Reason, err)
	}
	check()
	srv.ChangeSubscription("sub_1", func(s *stripetest.Subscription) { s.Status = "unpaid" })
	check() // nobody has told
	event := srv.Notify("whsec_c2VjcmV0", "customer.subscription.updated", "sub_1")
	mux.ServeHTTP(httptest.NewRecorder(), event.Request("https://vendor.example/stripe"))
	check()
	// Output:
	// true  <nil>
	// true  <nil>
	// false unpaid <nil>
}

// What a subscription is worth is for the vendor to say.
func ExampleConfig() {
	checker := stripelicense.NewChecker(stripelicense.Config{
		Key:             "rk_live_51H7x",
		Mode:            stripelicense.LiveMode,
		KeyMetadata:     "license_key",
		KeySecret:       "bDk0c2VjcmV0LW9mLTMyLWNoYXJhY3RlcnM", // the field holds KeyDigest(KeySecret, key)
		SubjectMetadata: "account",                             // for callers who have logged in
		Products:        []string{"prod_Reports"},
		Statuses:        []string{"active", "past_due"}, // no trials
		PastDueFor:      14 * 24 * time.Hour,
		RefusePaused:    true,
	})
	fmt.Println(checker, checker.Validate())

	checker = stripelicense.NewChecker(stripelicense.Config{
		Key: "sk_live_51H7x", Mode: stripelicense.TestMode, Statuses: []string{"canceled"},
	})
	fmt.Println(checker.Validate())
	// Output:
	// stripe:live <nil>
	// stripelicense: Config.Mode is test, and Key is a live key: one of them is in the wrong place
	// stripelicense: Config.Statuses[0] is "canceled": use any of active, trialing, past_due, unpaid, incomplete, paused; the others are final
	// stripelicense: Config.Statuses lacks "active": nobody who pays would be allowed
}

// Whoever issues license keys writes their digests into Stripe.
func ExampleKeyDigest() {
	fmt.Println(stripelicense.KeyDigest("bDk0c2VjcmV0LW9mLTMyLWNoYXJhY3RlcnM", license.NewKey("LK-2f9a")))
	// Output:
	// e4ae2bf740dd988e0b0fef90fa30376f8a8071949b2aa666969dfbe1d9717697
}
