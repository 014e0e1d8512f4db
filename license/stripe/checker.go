// Package stripelicense checks licenses against Stripe: whether a customer has a
// subscription in good standing, and the active entitlement that a feature needs.
//
// Put it behind a cache, and have Stripe's webhooks empty that:
//
//	checker := stripelicense.NewChecker(stripelicense.Config{
//		Key:         os.Getenv("STRIPE_KEY"),
//		KeyMetadata: "license_key",
//		Features:    map[string]string{"tax-report": "tax_reports"},
//	})
//	verdicts := cache.New(cache.Config{Checker: checker, Fresh: 4 * time.Hour})
//	mux.Handle("POST /stripe", checker.Webhook(stripelicense.WebhookConfig{
//		Secrets: []string{os.Getenv("STRIPE_WEBHOOK_SECRET")}, Cache: verdicts,
//	}))
//
// (The package has another name than its directory so that it can stand beside the
// SDK's own, which is called stripe.)
//
// # Who is allowed
//
// A caller is found by the license key, which a metadata field of subscriptions holds,
// or by the subject that the host has authenticated: a customer, "cus_…", or what
// another metadata field holds. Where a query has both, both must lead to the same
// subscription, unless Config.KeyMetadata is empty: then the key says nothing. The
// verdict's subject is the customer, whom stripesink bills.
//
//	status of the subscription    verdict
//	active, trialing              allowed
//	past_due                      allowed, see Config.PastDueFor; else unpaid
//	unpaid, incomplete, paused    denied: unpaid
//	canceled, incomplete_expired  denied: expired
//	none                          denied: not found
//	none of Config.Products       denied: not entitled
//	any other                     an error: unknown
//
// Config.Statuses changes the first three lines. Of several subscriptions the best
// counts. Subscriptions of several customers, all in good standing, under one license
// key or subject are an error, for somebody would pay for somebody else.
//
// Where Config.Features names an entitlement, the customer must have that, too. An
// active entitlement alone is not enough: a paused subscription keeps its entitlements.
// Nor does an entitlement say which subscription it comes from; if customers may have a
// paused one and another that is active, tell them apart by Config.Products. A feature
// that is added to a product in Stripe does not reach those who have subscribed before,
// and Stripe tells nobody.
//
// # Until when
//
// A subscription that renews itself has no end: a verdict that ended with the paid
// period would refuse a paying customer if Stripe could not be reached just
// then. How long a verdict is good for is the cache's to say. A subscription that is to
// be canceled ends at that time, and ten minutes later, which clocks and Stripe may
// take.
//
// # What it costs
//
// Stripe limits reads to 500 a payment in 30 days, at least 10,000 a month, and to
// 25 a second, all of a test account's together. A check takes two, one without an
// entitlement, and one search more for a key that is new to this process. So let the
// cache answer for hours (Fresh), and the webhook end that early. Events get lost, and
// reach only one of several processes; Fresh bounds how long that may go unnoticed.
//
// # What Stripe's search does
//
// It is a minute behind, in bad times an hour: a key that was just issued is not found,
// unless the webhook has told of its subscription. What it finds is read again, by ID,
// and must hold exactly the key that was presented, for the search ignores case. It
// takes 20 requests a second, and is not to be had in India.
//
// None of this was tried against a live account: it rests on what Stripe documents, its
// SDK, and stripe-mock for the form of requests.
//
// Requests go through stripe-go, without its retries, telemetry and log. On its first
// request in a process it runs "uname -a" for a header; where no such program may be
// run, it goes on without.
package stripelicense

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/license"
	"github.com/stripe/stripe-go/v76/entitlements/activeentitlement"
	"github.com/stripe/stripe-go/v76/subscription"
	"github.com/stripe/stripe-go/v76/subscriptionitem"
)

var _ license.Checker = (*Checker)(nil)

// Checker is a [license.Checker] on Stripe. Make it with [NewChecker]; the zero value
// does not work.
//
// Concurrency: every method is safe for concurrent use.
type Checker struct {
	cfg           Config
	faults        error
	api           *stripeapi.API
	subscriptions subscription.Client
	items         subscriptionitem.Client
	entitlements  activeentitlement.Client
	keys          index
	subjects      index
}

// NewChecker returns a checker with a copy of cfg. It uses no network and starts
// nothing in the background. If cfg is faulty, Validate and every Check say how.
func NewChecker(cfg Config) *Checker {
	cfg.Features, cfg.Products, cfg.Statuses = maps.Clone(cfg.Features), slices.Clone(cfg.Products), slices.Clone(cfg.Statuses)
	api := stripeapi.New(cfg.BaseURL, cfg.HTTPClient)
	return &Checker{
		cfg:           cfg.withDefaults(),
		faults:        cfg.withDefaults().validate(),
		api:           api,
		subscriptions: subscription.Client{B: api.Backend, Key: cfg.Key},
		items:         subscriptionitem.Client{B: api.Backend, Key: cfg.Key},
		entitlements:  activeentitlement.Client{B: api.Backend, Key: cfg.Key},
		keys:          newIndex(cfg.KeyMetadata),
		subjects:      newIndex(cfg.SubjectMetadata),
	}
}

// Check asks Stripe. A denial names the customer if there is one.
//
// Guarantee: Denied means that Stripe has answered so, about everything that was asked
// of it, or that the key can't be one.
// Blocking: one to three requests as a rule, each within ctx and 10 s at most; more
// for a customer with more than 100 subscriptions or entitlements.
// Errors: unknown, never denied: Stripe can't be reached, answers with an error or with
// what is not Stripe's; a permission is missing; the query or Stripe's data do not fit
// the Config; those of Validate. An error of a request has a method RetryAfter() time.Duration,
// above 0 if Stripe has asked for a pause; one about the query, a method AboutQuery() bool
// that returns true. Never with a key in it.
func (c *Checker) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	if c.faults != nil {
		return license.Verdict{}, c.faults
	}
	lookupKey, err := c.needs(q.Feature)
	if err != nil {
		return license.Verdict{}, err
	}
	found, denied, err := c.find(ctx, q)
	if err != nil || denied != "" {
		return deny(denied, ""), err
	}
	v, err := c.judge(found)
	if err != nil || v.Status != license.Allowed || lookupKey == "" {
		return v, err
	}
	switch entitled, err := c.entitled(ctx, v.Subject, lookupKey); {
	case err != nil:
		return license.Verdict{}, err
	case !entitled:
		return deny(license.NotEntitled, v.Subject), nil
	}
	return v, nil
}

func deny(reason license.Reason, customer string) license.Verdict {
	if reason == "" {
		return license.Verdict{}
	}
	return license.Verdict{Status: license.Denied, Reason: reason, Subject: customer}
}

// needs is the lookup key of the entitlement that a feature needs, "" for none.
func (c *Checker) needs(feature string) (lookupKey string, err error) {
	lookupKey, known := c.cfg.Features[feature]
	if !known && feature != "" && len(c.cfg.Features) > 0 {
		return "", &queryError{fmt.Sprintf(`stripelicense: Config.Features has no feature %q: name the lookup_key of its entitlement, or "" if a subscription is enough`,
			stripeapi.Clean(feature, c.cfg.Key))}
	}
	return lookupKey, nil
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with a key in it.
func (c *Checker) Validate() error { return c.faults }

// Close drops idle connections, unless Config.HTTPClient was given. The checker stays
// usable.
//
// Errors: none.
func (c *Checker) Close() error {
	c.api.Close()
	return nil
}

// Address is "stripe:test" or "stripe:live", and what leads from a key or subject to a
// customer, such as "stripe:live?KeyMetadata=license_key"; of KeySecret, whether there is
// one. Whose account Key opens is not in it. "" if the Config is faulty.
func (c *Checker) Address() string {
	if c.faults != nil {
		return "" // who knows what stands where
	}
	settings := url.Values{}
	set := func(field, value string) {
		if value != "" {
			settings.Set(field, value)
		}
	}
	set("KeyMetadata", c.cfg.KeyMetadata)
	set("SubjectMetadata", c.cfg.SubjectMetadata)
	if c.cfg.KeySecret != "" {
		set("KeySecret", "true")
	}
	address := c.shown()
	if len(settings) > 0 {
		address += "?" + settings.Encode()
	}
	return strings.ReplaceAll(address, c.cfg.Key, "[key]") // in the wrong field
}

// shown is how the checker is printed.
func (c *Checker) shown() string { return "stripe:" + stripeapi.Mode(stripeapi.Live(c.cfg.Key)) }

// Format prints "stripe:test" or "stripe:live", whatever the verb.
func (c *Checker) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.shown()) }

// LogValue is what [Checker.Format] prints.
func (c *Checker) LogValue() slog.Value { return slog.StringValue(c.shown()) }

// slack is what clocks and Stripe may take to end a subscription.
const slack = 10 * time.Minute
