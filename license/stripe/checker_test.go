package stripelicense_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	stripelicense "github.com/inprocess/meter/license/stripe"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestEveryStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]license.Reason{
		"active": "", "trialing": "", "past_due": "",
		"unpaid": license.Unpaid, "incomplete": license.Unpaid, "paused": license.Unpaid,
		"canceled": license.Expired, "incomplete_expired": license.Expired,
	} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, nil)
			a.subscribe(func(s *stripetest.Subscription) { s.Status = status })
			a.entitle(lookupKey)
			for _, q := range both() {
				if want != "" {
					a.wantDenied(t, q, want, customer)
					continue
				}
				v := a.wantAllowed(t, q)
				require.Zero(t, v.Until, "it renews itself: its end is not known")
			}
		})
	}
}

func TestStatusesAreTheVendorsChoice(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"trialing", "past_due", "unpaid", "incomplete", "paused"} {
		for _, allowed := range []bool{false, true} {
			t.Run(fmt.Sprint(status, allowed), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t, func(c *stripelicense.Config) {
					c.Statuses = []string{"active"}
					if allowed {
						c.Statuses = []string{"active", status}
					}
				})
				a.subscribe(func(s *stripetest.Subscription) { s.Status = status })
				for _, q := range both() {
					if allowed {
						a.wantAllowed(t, basic(q))
					} else {
						a.wantDenied(t, basic(q), license.Unpaid, customer)
					}
				}
			})
		}
	}
}

// A status that Stripe may invent is nobody's fault.
func TestUnknownStatusIsUnknown(t *testing.T) {
	t.Parallel()
	a := answers(t, reply(200, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"resting"}]}`), nil)
	a.wantUnknown(t, bySubject(), `subscription sub_1 has status "resting"`)
}

// One in good standing counts, whatever else there is.
func TestGoodStandingOutweighsOddities(t *testing.T) {
	t.Parallel()
	a := answers(t, reply(200, `{"object":"list","data":[
		{"object":"subscription","id":"sub_2","customer":"cus_1","status":"resting"},
		{"object":"subscription","id":"sub_3","customer":"cus_1","status":"canceled"},
		{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active"}]}`), nil)
	a.wantAllowed(t, basic(bySubject()))
}

func TestPausedCollection(t *testing.T) {
	t.Parallel()
	for _, refuse := range []bool{false, true} {
		a := newAccount(t, func(c *stripelicense.Config) { c.RefusePaused = refuse })
		a.subscribe(func(s *stripetest.Subscription) { s.CollectionPaused = true })
		a.entitle(lookupKey)
		for _, q := range both() {
			if refuse {
				a.wantDenied(t, q, license.Unpaid, customer)
			} else {
				a.wantAllowed(t, q)
			}
		}
	}
}

func TestPastDueFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripelicense.Config) { c.PastDueFor = 72 * time.Hour })
		begun := time.Now()
		sub := a.subscribe(func(s *stripetest.Subscription) { s.Status = "past_due" })
		q := basic(byKey())
		require.Equal(t, begun.Add(72*time.Hour).Unix(), a.wantAllowed(t, q).Until.Unix(), "known in advance")
		time.Sleep(72*time.Hour - 2*time.Second)
		a.wantAllowed(t, q)
		time.Sleep(2 * time.Second)
		a.wantDenied(t, q, license.Unpaid, customer)
		a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "active" })
		require.Zero(t, a.wantAllowed(t, q).Until)
	})
}

// The earlier of two ends counts.
func TestPastDueAndCanceledAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripelicense.Config) { c.PastDueFor = 72 * time.Hour })
		begun := time.Now()
		a.subscribe(func(s *stripetest.Subscription) { s.Status, s.CancelAtPeriodEnd = "past_due", true })
		require.Equal(t, begun.Add(72*time.Hour).Unix(), a.wantAllowed(t, basic(byKey())).Until.Unix())
	})
}

func TestPastDueForNeedsAPeriod(t *testing.T) {
	t.Parallel()
	a := answers(t, reply(200, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"past_due"}]}`),
		func(c *stripelicense.Config) { c.PastDueFor = time.Hour })
	a.wantUnknown(t, basic(bySubject()), "without current_period_start")
}

// A verdict that ended with the period would refuse who has paid for the next one.
func TestRenewalIsNotAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.subscribe(nil)
		require.Zero(t, a.wantAllowed(t, basic(byKey())).Until)
		time.Sleep(40 * 24 * time.Hour)
		require.Zero(t, a.wantAllowed(t, basic(byKey())).Until)
	})
}

func TestCancellationAheadIsAnEnd(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*stripetest.Subscription){
		"at the period's end": func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = true },
		"at a time":           func(s *stripetest.Subscription) { s.CancelAt = s.End },
		"at the earlier one":  func(s *stripetest.Subscription) { s.CancelAtPeriodEnd, s.CancelAt = true, s.End.Add(time.Hour) },
		"and past due":        func(s *stripetest.Subscription) { s.CancelAtPeriodEnd, s.Status = true, "past_due" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAccount(t, func(c *stripelicense.Config) { c.PastDueFor = 90 * 24 * time.Hour })
				sub := a.subscribe(func(s *stripetest.Subscription) {
					s.End = time.Now().Add(24 * time.Hour)
					change(s)
				})
				for _, q := range both() {
					require.Equal(t, sub.End.Add(10*time.Minute).Unix(), a.wantAllowed(t, basic(q)).Until.Unix())
				}
				time.Sleep(24 * time.Hour)
				for _, q := range both() {
					a.wantDenied(t, basic(q), license.Expired, customer)
				}
			})
		})
	}
}

// Stripe may be late to end a subscription, but not for ever.
func TestEndedIsExpiredThoughStripeIsLate(t *testing.T) {
	t.Parallel()
	late := func(ago time.Duration) *account {
		body := fmt.Sprintf(`{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active","cancel_at":%d}]}`,
			time.Now().Add(-ago).Unix())
		return answers(t, reply(200, body), nil)
	}
	v := late(5*time.Minute).wantAllowed(t, basic(bySubject()))
	require.True(t, v.Until.After(time.Now()), "a verdict whose end has passed would be unknown")
	late(11*time.Minute).wantDenied(t, basic(bySubject()), license.Expired, customer)
}

func TestNobody(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.SubjectMetadata = "account" })
	a.subscribe(nil)
	a.wantDenied(t, license.Query{Feature: feature}, license.NoKey, "")
	for name, q := range map[string]license.Query{
		"other key":           {Key: license.NewKey("LK-other")},
		"key in other case":   {Key: license.NewKey("lk/CANARY+0815=a:B")},
		"unsearchable key":    {Key: license.NewKey(`' OR status:'active`)},
		"overlong key":        {Key: license.NewKey(fmt.Sprintf("%0201d", 1))},
		"other customer":      {Subject: "cus_2"},
		"other subject":       {Subject: "acct-8"},
		"subject in case":     {Subject: "ACCT-7"},
		"unsearchable":        {Subject: `acct' AND`},
		"another's key":       {Key: license.NewKey(licenseKey), Subject: "cus_2"},
		"another's by a name": {Key: license.NewKey(licenseKey), Subject: "acct-8"},
	} {
		v, err := a.Check(t.Context(), q)
		require.NoError(t, err, name)
		require.Equal(t, license.Verdict{Status: license.Denied, Reason: license.NotFound}, v, name)
	}
	for _, q := range []license.Query{
		{Key: license.NewKey(licenseKey)}, {Subject: customer}, {Subject: "acct-7"},
		{Key: license.NewKey(licenseKey), Subject: customer}, {Key: license.NewKey(licenseKey), Subject: "acct-7"},
	} {
		a.wantAllowed(t, q)
	}
}

// No request is spent on a key that no subscription can hold.
func TestHopelessKeysCostNothing(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.wantDenied(t, license.Query{Key: license.NewKey(`'"`)}, license.NotFound, "")
	require.Zero(t, a.Requests())
}

func TestQueryThatDoesNotFitTheConfig(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.KeyMetadata = "" })
	a.subscribe(nil)
	for _, err := range []error{
		a.wantUnknown(t, byKey(), "set Config.KeyMetadata"),
		a.wantUnknown(t, license.Query{Subject: "acct-7"}, `subject "acct-7" is no customer`, "Config.SubjectMetadata"),
		a.wantUnknown(t, license.Query{Subject: apiKey}, `subject "[key]"`),
		a.wantUnknown(t, license.Query{Subject: customer, Feature: "export"}, `Config.Features has no feature "export"`),
	} {
		about, ok := err.(interface{ AboutQuery() bool })
		require.True(t, ok && about.AboutQuery(), "Stripe is not down: %v", err)
	}
	require.Zero(t, a.Requests())
	a.wantAllowed(t, license.Query{Subject: customer})
	a.wantAllowed(t, license.Query{Subject: customer, Key: license.NewKey("says nothing")})
}

func TestFeaturesWithoutEntitlements(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.Features = nil })
	a.subscribe(nil)
	for _, q := range both() {
		a.wantAllowed(t, q)
	}
	require.Zero(t, a.RequestsTo(listEnt))
}

func TestProducts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.Products = []string{"prod_0", "prod_2"} })
	a.AddProduct(stripetest.Product{ID: "prod_2"})
	second := a.AddPrice(stripetest.Price{Product: "prod_2"}).ID
	sub := a.subscribe(nil)
	for _, q := range both() {
		a.wantDenied(t, basic(q), license.NotEntitled, customer)
	}
	a.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) {
		s.Items = append(s.Items, stripetest.Item{Price: second})
	})
	for _, q := range both() {
		a.wantAllowed(t, basic(q))
	}
}

// A subscription shows only the first of its items.
func TestProductBehindTheFirstItems(t *testing.T) {
	t.Parallel()
	a := answers(t, func(w httpWriter, r *httpRequest) {
		switch {
		case r.URL.Path == "/v1/subscriptions":
			fmt.Fprint(w, `{"object":"list","data":[{"object":"subscription","id":"sub_1","customer":"cus_1","status":"active",
				"items":{"object":"list","has_more":true,"data":[{"id":"si_1","price":{"id":"price_1","product":"prod_1"}}]}}]}`)
		case r.FormValue("starting_after") == "":
			fmt.Fprint(w, `{"object":"list","has_more":true,"data":[{"id":"si_1","price":{"id":"price_1","product":"prod_1"}}]}`)
		case r.FormValue("starting_after") == "si_1":
			fmt.Fprint(w, `{"object":"list","has_more":false,"data":[{"id":"si_2","price":{"id":"price_2","product":{"id":"prod_2"}}}]}`)
		}
	}, func(c *stripelicense.Config) { c.Products = []string{"prod_2"} })
	a.wantAllowed(t, basic(bySubject()))
}

func TestSubscriptionsOfSeveralCustomers(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(c *stripelicense.Config) { c.SubjectMetadata = "account" })
	a.AddCustomer(stripetest.Customer{ID: "cus_2"})
	a.subscribe(func(s *stripetest.Subscription) { s.Customer = "cus_2" })
	a.subscribe(nil)
	for range 2 { // what was found the first time is no answer the second time
		for _, q := range []license.Query{byKey(), {Subject: "acct-7"}} {
			a.wantUnknown(t, basic(q), "several customers, cus_1, cus_2")
		}
	}
	a.wantAllowed(t, basic(license.Query{Key: license.NewKey(licenseKey), Subject: customer}))
	a.ChangeCustomer("cus_2", func(c *stripetest.Customer) { c.Deleted = true })
	for _, q := range []license.Query{byKey(), {Subject: "acct-7"}} {
		a.wantAllowed(t, basic(q))
	}
}

// A key that has moved to another customer is looked for again.
func TestKeyKnownAsAnothers(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.AddCustomer(stripetest.Customer{ID: "cus_2"})
	a.subscribe(func(s *stripetest.Subscription) { s.Customer = "cus_2" })
	v, err := a.Check(t.Context(), basic(byKey()))
	require.NoError(t, err)
	require.Equal(t, "cus_2", v.Subject)
	a.subscribe(nil)
	a.wantAllowed(t, basic(license.Query{Key: license.NewKey(licenseKey), Subject: customer}))
}

// Who has come back counts, by the key that was there before; and so does the reason
// that can be helped.
func TestBestOfSeveralSubscriptions(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(func(s *stripetest.Subscription) { s.Status = "canceled" })
	for _, q := range both() {
		a.wantDenied(t, basic(q), license.Expired, customer)
	}
	unpaid := a.subscribe(func(s *stripetest.Subscription) { s.Status = "unpaid" })
	for _, q := range both() {
		a.wantDenied(t, basic(q), license.Unpaid, customer)
	}
	a.subscribe(func(s *stripetest.Subscription) { s.CancelAtPeriodEnd = true })
	for _, q := range both() {
		require.NotZero(t, a.wantAllowed(t, basic(q)).Until)
	}
	a.ChangeSubscription(unpaid.ID, func(s *stripetest.Subscription) { s.Status = "active" })
	require.Zero(t, a.wantAllowed(t, basic(bySubject())).Until, "the one without an end counts")
}

func TestDeletedCustomer(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(nil)
	a.entitle(lookupKey)
	for _, q := range both() {
		a.wantAllowed(t, q)
	}
	a.ChangeCustomer(customer, func(c *stripetest.Customer) { c.Deleted = true })
	for _, q := range both() {
		a.wantDenied(t, q, license.Expired, customer)
	}
	gone := answers(t, reply(400, `{"error":{"type":"invalid_request_error","code":"resource_missing","message":"No such customer"}}`), nil)
	gone.wantDenied(t, bySubject(), license.NotFound, "")
}

// A customer with many canceled subscriptions is read to the end.
func TestOldSubscriptionsInFront(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.subscribe(func(s *stripetest.Subscription) { s.Metadata = nil })
	for range 230 {
		a.subscribe(func(s *stripetest.Subscription) { s.Status, s.Metadata = "canceled", nil })
	}
	a.wantAllowed(t, basic(bySubject()))
	require.Equal(t, 3, a.RequestsTo(list))
}
