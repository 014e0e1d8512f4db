package stripelicense

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/license"
	"github.com/stripe/stripe-go/v76"
)

// candidate is a subscription and what it is worth.
type candidate struct {
	sub   *stripe.Subscription
	lacks license.Reason // why it does not count; "": it does
	until time.Time      // for how long it counts; zero: no end
	odd   error          // why that can't be told
}

func (c candidate) stands() bool { return c.lacks == "" && c.odd == nil }

// assess says what a subscription is worth. Its error is that of asking Stripe.
func (c *Checker) assess(ctx context.Context, sub *stripe.Subscription, now time.Time) (candidate, error) {
	one := candidate{sub: sub}
	one.lacks, one.until, one.odd = c.standing(sub, now)
	if !one.stands() {
		return one, nil
	}
	has, err := c.hasProduct(ctx, sub)
	if err == nil && !has {
		one.lacks = license.NotEntitled
	}
	return one, err
}

// standing judges a subscription by itself.
func (c *Checker) standing(sub *stripe.Subscription, now time.Time) (lacks license.Reason, until time.Time, err error) {
	status := string(sub.Status)
	switch {
	case slices.Contains(final, status):
		return license.Expired, until, nil
	case !slices.Contains(allowable, status):
		return "", until, fmt.Errorf("stripelicense: subscription %s has status %q, which this package does not know", sub.ID, clip(status))
	case !slices.Contains(c.cfg.Statuses, status):
		return license.Unpaid, until, nil
	case c.cfg.RefusePaused && sub.PauseCollection != nil:
		return license.Unpaid, until, nil
	}
	if ends := ceases(sub); ends != 0 {
		until = time.Unix(ends, 0).Add(slack)
		if !now.Before(until) {
			return license.Expired, time.Time{}, nil // though Stripe hasn't got round to it
		}
	}
	if status != "past_due" || c.cfg.PastDueFor == 0 {
		return "", until, nil
	}
	if sub.CurrentPeriodStart == 0 {
		return "", until, fmt.Errorf("stripelicense: subscription %s came without current_period_start, which Config.PastDueFor needs", sub.ID)
	}
	grace := time.Unix(sub.CurrentPeriodStart, 0).Add(c.cfg.PastDueFor)
	if !now.Before(grace) {
		return license.Unpaid, time.Time{}, nil
	}
	if until.IsZero() || grace.Before(until) {
		until = grace
	}
	return "", until, nil
}

// ceases is when a subscription will be canceled, in seconds; 0: it renews itself.
func ceases(sub *stripe.Subscription) int64 {
	switch {
	case !sub.CancelAtPeriodEnd || sub.CurrentPeriodEnd == 0:
		return sub.CancelAt
	case sub.CancelAt == 0:
		return sub.CurrentPeriodEnd
	}
	return min(sub.CancelAt, sub.CurrentPeriodEnd)
}

// pick returns the subscription in good standing that lasts longest, nil if there is
// none, and the customers who have one.
func pick(found []candidate) (best *candidate, customers []string) {
	all := map[string]bool{}
	for i, one := range found {
		if !one.stands() {
			continue
		}
		all[one.sub.Customer.ID] = true
		if best == nil || !best.until.IsZero() && (one.until.IsZero() || one.until.After(best.until)) {
			best = &found[i]
		}
	}
	return best, slices.Sorted(maps.Keys(all))
}

// judge gives the verdict on what was found, which is not nothing.
func (c *Checker) judge(found []candidate) (license.Verdict, error) {
	switch best, customers := pick(found); {
	case len(customers) > 1:
		return license.Verdict{}, fmt.Errorf("stripelicense: one license key or subject leads to subscriptions of several customers, %s: correct the metadata of the subscriptions",
			strings.Join(customers, ", "))
	case best != nil:
		return license.Verdict{Status: license.Allowed, Subject: best.sub.Customer.ID, Until: best.until}, nil
	}
	return denial(found)
}

// worst are the reasons to deny, the first of which is told: whoever can pay shall know.
var worst = []license.Reason{license.Unpaid, license.NotEntitled, license.Expired}

func denial(found []candidate) (license.Verdict, error) {
	var odd []error
	for _, one := range found {
		odd = append(odd, one.odd)
	}
	if err := errors.Join(odd...); err != nil {
		return license.Verdict{}, err // it may be in good standing
	}
	for _, reason := range worst {
		for _, one := range found {
			if one.lacks == reason {
				return deny(reason, one.sub.Customer.ID), nil
			}
		}
	}
	return deny(license.NotFound, ""), nil
}

// among reports whether one of the items is of one of the products.
func (c *Checker) among(items []*stripe.SubscriptionItem) bool {
	return slices.ContainsFunc(items, func(it *stripe.SubscriptionItem) bool {
		return it != nil && it.Price != nil && it.Price.Product != nil && slices.Contains(c.cfg.Products, it.Price.Product.ID)
	})
}

// believe refuses a subscription that lacks what is needed of it, or is of the other
// mode.
func (c *Checker) believe(r request, sub *stripe.Subscription) error {
	if sub == nil || !subscriptionID.MatchString(sub.ID) || sub.Status == "" ||
		sub.Customer == nil || !customerID.MatchString(sub.Customer.ID) {
		return r.nonsense()
	}
	if err := stripeapi.CheckObject(sub.Livemode, c.cfg.Key, c.cfg.BaseURL); err != nil {
		return fmt.Errorf("stripelicense: %s: %w", r.doing, err)
	}
	return nil
}

// clip makes a foreign word fit for an error.
func clip(text string) string { return stripeapi.Clean(text, "") }
