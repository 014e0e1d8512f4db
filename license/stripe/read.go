package stripelicense

import (
	"context"
	"fmt"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/entitlements/activeentitlement"
	"github.com/stripe/stripe-go/v76/subscription"
	"github.com/stripe/stripe-go/v76/subscriptionitem"
)

const (
	perPage  = 100
	maxPages = 50
)

// subscription reads one; nil if there is none.
func (c *Checker) subscription(ctx context.Context, id string) (*stripe.Subscription, error) {
	var sub *stripe.Subscription
	r := request{doing: "reading subscription " + id, object: "subscription", permission: "subscriptions"}
	found, err := c.ask(ctx, r, func(ctx context.Context) (err error) {
		sub, err = c.subscriptions.Get(id, &stripe.SubscriptionParams{Params: stripe.Params{Context: ctx}})
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	if sub.ID != id {
		return nil, fmt.Errorf("stripelicense: %s: the answer is another one, so perhaps not Stripe's", r.doing)
	}
	return sub, c.believe(r, sub)
}

// ofCustomer lists a customer's subscriptions until one is in good standing, canceled
// ones included: they tell who has left from who never came.
func (c *Checker) ofCustomer(ctx context.Context, id string) (found []candidate, err error) {
	r := request{doing: "listing the subscriptions of " + id, object: "list", permission: "subscriptions"}
	err = eachPage(r, func(after string) (last string, more bool, err error) {
		var list *subscription.Iter
		answered, err := c.ask(ctx, r, func(ctx context.Context) error {
			list = c.subscriptions.List(&stripe.SubscriptionListParams{
				ListParams: pageParams(ctx, after), Customer: stripe.String(id), Status: stripe.String("all"),
			})
			return list.Err()
		})
		if err != nil || !answered {
			return "", false, err
		}
		for _, sub := range list.SubscriptionList().Data {
			if err := c.believe(r, sub); err != nil {
				return "", false, err
			}
			if sub.Customer.ID != id {
				return "", false, fmt.Errorf("stripelicense: %s: %s is of another customer, so perhaps not from Stripe", r.doing, clip(sub.ID))
			}
			one, err := c.assess(ctx, sub, time.Now())
			if err != nil {
				return "", false, err
			}
			if found = append(found, one); one.stands() && one.until.IsZero() {
				return "", false, nil // there is none better
			}
			last = sub.ID
		}
		return last, list.Meta().HasMore, nil
	})
	return found, err
}

// search finds subscriptions by metadata. The value may be a license key: it is in the
// URL, so nothing that may quote that gets into an error.
func (c *Checker) search(ctx context.Context, field, value string) ([]*stripe.Subscription, error) {
	r := request{doing: "searching for subscriptions", object: "search_result", permission: "subscriptions", secret: value}
	var list *subscription.SearchIter
	found, err := c.ask(ctx, r, func(ctx context.Context) error {
		list = c.subscriptions.Search(&stripe.SubscriptionSearchParams{SearchParams: stripe.SearchParams{
			Context: ctx, Single: true, Limit: stripe.Int64(perPage), Query: stripeapi.MetadataQuery(field, value),
		}})
		return list.Err()
	})
	if err != nil || !found {
		return nil, err
	}
	if list.Meta().HasMore {
		return nil, fmt.Errorf("stripelicense: %s: more than %d hold one value in metadata field %q: correct their metadata", r.doing, perPage, field)
	}
	subs := list.SubscriptionSearchResult().Data
	for _, sub := range subs {
		if err := c.believe(r, sub); err != nil {
			return nil, err
		}
	}
	return subs, nil
}

// hasProduct reports whether a subscription has one of the products, also behind the
// items that it shows itself.
func (c *Checker) hasProduct(ctx context.Context, sub *stripe.Subscription) (bool, error) {
	if len(c.cfg.Products) == 0 {
		return true, nil
	}
	if sub.Items == nil {
		return false, fmt.Errorf("stripelicense: subscription %s came without its items", sub.ID)
	}
	if c.among(sub.Items.Data) || !sub.Items.HasMore {
		return c.among(sub.Items.Data), nil
	}
	has := false
	r := request{doing: "listing the items of " + sub.ID, object: "list", permission: "subscriptions"}
	err := eachPage(r, func(after string) (last string, more bool, err error) {
		var list *subscriptionitem.Iter
		found, err := c.ask(ctx, r, func(ctx context.Context) error {
			list = c.items.List(&stripe.SubscriptionItemListParams{ListParams: pageParams(ctx, after), Subscription: stripe.String(sub.ID)})
			return list.Err()
		})
		if err != nil || !found {
			return "", false, err
		}
		items := list.SubscriptionItemList().Data
		if has = c.among(items); has || len(items) == 0 || items[len(items)-1] == nil {
			return "", list.Meta().HasMore && !has, nil
		}
		return items[len(items)-1].ID, list.Meta().HasMore, nil
	})
	return has, err
}

// entitled reports whether a customer has an active entitlement. A customer who is gone
// by now has none.
func (c *Checker) entitled(ctx context.Context, customer, lookupKey string) (has bool, err error) {
	r := request{doing: "listing the entitlements of " + customer, object: "list", permission: "entitlements"}
	err = eachPage(r, func(after string) (last string, more bool, err error) {
		var list *activeentitlement.Iter
		found, err := c.ask(ctx, r, func(ctx context.Context) error {
			list = c.entitlements.List(&stripe.EntitlementsActiveEntitlementListParams{
				ListParams: pageParams(ctx, after), Customer: stripe.String(customer),
			})
			return list.Err()
		})
		if err != nil || !found {
			return "", false, err
		}
		for _, e := range list.EntitlementsActiveEntitlementList().Data {
			if e == nil || e.ID == "" {
				return "", false, r.nonsense()
			}
			if err := stripeapi.CheckObject(e.Livemode, c.cfg.Key, c.cfg.BaseURL); err != nil {
				return "", false, fmt.Errorf("stripelicense: %s: %w", r.doing, err)
			}
			if has = e.LookupKey == lookupKey; has {
				return "", false, nil
			}
			last = e.ID
		}
		return last, list.Meta().HasMore, nil
	})
	return has && err == nil, err
}

// eachPage calls read with the last ID of the page before, "" first, until there is
// no more. A list that says it goes on, and does not say where, is not taken for read.
func eachPage(r request, read func(after string) (last string, more bool, err error)) error {
	after := ""
	for range maxPages {
		last, more, err := read(after)
		switch {
		case err != nil || !more:
			return err
		case last == "" || last == after:
			return r.nonsense()
		}
		after = last
	}
	return fmt.Errorf("stripelicense: %s: there are more than %d: not all were read", r.doing, maxPages*perPage)
}

// pageParams are those of one page of a list, the one after an ID.
func pageParams(ctx context.Context, after string) stripe.ListParams {
	p := stripe.ListParams{Context: ctx, Single: true, Limit: stripe.Int64(perPage)}
	if after != "" {
		p.StartingAfter = stripe.String(after)
	}
	return p
}
