package stripesink

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// billable reports whether usage of the subscription will be billed: also while it is
// not paid, for who may call is decided elsewhere, and what was used is owed. One that
// is incomplete or paused may yet become so, which its counts wait for.
func (c contract) billable() bool {
	switch stripe.SubscriptionStatus(c.status) {
	case stripe.SubscriptionStatusActive, stripe.SubscriptionStatusTrialing,
		stripe.SubscriptionStatusPastDue, stripe.SubscriptionStatusUnpaid:
		return true
	}
	return false
}

// pick chooses the item among what was found.
func (v *resolver) pick(subject string, prices []string, f finding) (payer, error) {
	var fit []payer
	var near []contract // with the price, in another state
	for _, c := range f.contracts {
		for _, it := range c.items {
			switch {
			case !slices.Contains(prices, it.price):
			case c.billable():
				fit = append(fit, payer{it, c})
			default:
				near = append(near, c)
			}
		}
	}
	name := stripeapi.Clean(subject, v.key)
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		if err := canceled(subject, near); err != nil {
			return payer{}, err
		}
		return payer{}, miss(ErrNotFound, "subject %q has no subscription item with price %s%s: its counts are kept; subscribe it, or correct UsageRecordsConfig.Prices",
			name, strings.Join(prices, " or "), states(near))
	}
	ids := make([]string, len(fit))
	for i, p := range fit {
		ids[i] = p.item.id
	}
	return payer{}, miss(ErrAmbiguous, "subject %q has subscription items %s: its counts are kept; identify the caller by one of them, or end the others",
		name, few(ids))
}

// pickCustomer chooses the customer among what was found.
func (v *resolver) pickCustomer(subject string, f finding) (string, error) {
	fit := map[string]bool{}
	var near []contract
	for _, c := range f.contracts {
		if c.billable() {
			fit[c.customer] = true
		} else {
			near = append(near, c)
		}
	}
	ids, name := slices.Sorted(maps.Keys(fit)), stripeapi.Clean(subject, v.key)
	switch len(ids) {
	case 1:
		return ids[0], nil
	case 0:
		if err := canceled(subject, near); err != nil {
			return "", err
		}
		return "", miss(ErrNotFound, "subject %q has no subscription%s: its counts are kept; subscribe it, or correct Config.SubjectMetadata",
			name, states(near))
	}
	return "", miss(ErrAmbiguous, "subject %q leads to customers %s: its counts are kept; identify the caller by one of them, or correct the metadata of the subscriptions",
		name, few(ids))
}

// canceled rejects what names a canceled subscription itself: that is for good. A
// customer or a license may still get another one.
func canceled(subject string, near []contract) error {
	if !strings.HasPrefix(subject, "sub_") && !strings.HasPrefix(subject, "si_") {
		return nil
	}
	for _, c := range near {
		if s := stripe.SubscriptionStatus(c.status); s == stripe.SubscriptionStatusCanceled || s == stripe.SubscriptionStatusIncompleteExpired {
			return fmt.Errorf("%w: stripesink: not sent: subscription %s is %s", sink.ErrRejected, c.id, c.status)
		}
	}
	return nil
}

func miss(kind error, format string, args ...any) error {
	return sink.RetryAfter(fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...)), missTTL)
}

// states tells of subscriptions that are not billed.
func states(near []contract) string {
	var texts []string
	for _, c := range near {
		texts = append(texts, c.id+" is "+c.status)
	}
	if texts == nil {
		return ""
	}
	return " in a state that is billed (" + few(texts) + ")"
}

// few joins texts, some of them if they are many.
func few(texts []string) string {
	const most = 3
	if more := len(texts) - most; more > 0 {
		texts = append(slices.Clone(texts[:most]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, ", ")
}
