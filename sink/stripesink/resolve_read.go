package stripesink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/subscription"
	"github.com/stripe/stripe-go/v76/subscriptionitem"
)

// lookUp asks Stripe for all subscriptions that a subject may mean; none if it knows
// nothing of the subject.
func (v *resolver) lookUp(ctx context.Context, subject string) ([]contract, error) {
	switch kind, _, _ := strings.Cut(subject, "_"); {
	case !stripeID.MatchString(subject):
		return v.search(ctx, subject)
	case kind == "cus":
		return v.ofCustomer(ctx, subject, "")
	case kind == "sub":
		return v.one(ctx, subject)
	}
	return v.ofItem(ctx, subject)
}

// again replaces one subscription of a subject's finding by what it is now. Where its
// metadata led there, and does so no more, the subject is looked up anew.
func (v *resolver) again(ctx context.Context, subject string, f finding, id string) (finding, error) {
	now, err := v.one(ctx, id)
	if err != nil {
		return f, err
	}
	is := func(c contract) bool { return c.id == id }
	if now = only(subject, now); len(now) == 0 && !stripeID.MatchString(subject) {
		f.contracts, err = v.lookUp(ctx, subject)
		f.contracts, f.at = slices.DeleteFunc(f.contracts, is), time.Now() // the index may be behind
		return f, err
	}
	at := slices.IndexFunc(f.contracts, is)
	f.contracts = slices.Replace(slices.Clone(f.contracts), at, at+1, now...)
	return f, nil
}

// only leaves of subscriptions the item that is the subject, if it is one, or those
// that hold it in their metadata, if it is none of Stripe's IDs.
func only(subject string, all []contract) []contract {
	if !stripeID.MatchString(subject) {
		return slices.DeleteFunc(all, func(c contract) bool { return c.subject != subject })
	}
	if strings.HasPrefix(subject, "si_") {
		for i := range all {
			all[i].items = slices.DeleteFunc(all[i].items, func(it item) bool { return it.id != subject })
		}
	}
	return all
}

func (v *resolver) one(ctx context.Context, id string) ([]contract, error) {
	var sub *stripe.Subscription
	found, err := v.read(ctx, "reading subscription "+id, "subscription", "subscriptions", func(ctx context.Context) (err error) {
		sub, err = v.subscriptions.Get(id, &stripe.SubscriptionParams{Params: stripe.Params{Context: ctx}})
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	return v.contracts(ctx, time.Now(), sub)
}

func (v *resolver) ofItem(ctx context.Context, id string) ([]contract, error) {
	var it *stripe.SubscriptionItem
	found, err := v.read(ctx, "reading subscription item "+id, "subscription_item", "subscriptions", func(ctx context.Context) (err error) {
		it, err = v.items.Get(id, &stripe.SubscriptionItemParams{Params: stripe.Params{Context: ctx}})
		return err
	})
	if err != nil || !found {
		return nil, err
	}
	all, err := v.one(ctx, it.Subscription)
	return only(id, all), err
}

// ofCustomer lists a customer's subscriptions: those that are not canceled, or with a
// status, or "all".
func (v *resolver) ofCustomer(ctx context.Context, id, status string) ([]contract, error) {
	var list *subscription.Iter
	found, err := v.read(ctx, "listing the subscriptions of "+id, "list", "subscriptions", func(ctx context.Context) error {
		params := &stripe.SubscriptionListParams{ListParams: pageParams(ctx, ""), Customer: stripe.String(id)}
		if status != "" {
			params.Status = stripe.String(status)
		}
		list = v.subscriptions.List(params)
		return list.Err()
	})
	switch {
	case err != nil || !found:
		return nil, err
	case list.Meta().HasMore:
		return nil, miss(ErrAmbiguous, "customer %s has more than 100 subscriptions: its counts are kept; identify the caller by a subscription or an item of one", id)
	}
	return v.contracts(ctx, time.Now(), list.SubscriptionList().Data...)
}

// sole returns the one item that a subject can have led to at any time, whatever was
// asked for then, or "" where there may be others.
func (v *resolver) sole(ctx context.Context, subject string) (id string, err error) {
	var all []contract
	switch kind, _, _ := strings.Cut(subject, "_"); {
	case !stripeID.MatchString(subject):
		return "", nil // the metadata may have been that of other subscriptions
	case kind == "si":
		return subject, nil
	case kind == "sub":
		all, err = v.one(ctx, subject)
	default:
		all, err = v.ofCustomer(ctx, subject, "all")
	}
	if err != nil && !errors.Is(err, ErrAmbiguous) {
		return "", err
	}
	for _, c := range all {
		for _, it := range c.items {
			switch {
			case !it.metered: // Stripe takes no usage there
			case id != "":
				return "", nil
			default:
				id = it.id
			}
		}
	}
	return id, nil
}

// search finds subscriptions by metadata. Stripe's index ignores case and is behind by
// a minute or, in bad times, an hour; only the ID of what it finds is news.
func (v *resolver) search(ctx context.Context, subject string) ([]contract, error) {
	var list *subscription.SearchIter
	found, err := v.read(ctx, "searching for subscriptions", "search_result", "subscriptions", func(ctx context.Context) error {
		list = v.subscriptions.Search(&stripe.SubscriptionSearchParams{SearchParams: stripe.SearchParams{
			Context: ctx, Single: true, Limit: stripe.Int64(100),
			Query: stripeapi.MetadataQuery(v.metadata, subject),
		}})
		return list.Err()
	})
	switch {
	case err != nil || !found:
		return nil, err
	case list.Meta().HasMore:
		return nil, miss(ErrAmbiguous, "subject %q has more than 100 subscriptions: its counts are kept; correct their metadata",
			stripeapi.Clean(subject, v.key))
	}
	all, err := v.contracts(ctx, time.Time{}, list.SubscriptionSearchResult().Data...)
	return only(subject, all), err
}

// contracts keeps what matters of subscriptions that were read at a time.
func (v *resolver) contracts(ctx context.Context, read time.Time, subs ...*stripe.Subscription) ([]contract, error) {
	var all []contract
	for _, sub := range subs {
		if sub == nil {
			continue
		}
		c := contract{
			id: sub.ID, status: string(sub.Status), subject: sub.Metadata[v.metadata],
			start: sub.CurrentPeriodStart, end: sub.CurrentPeriodEnd, ceases: sub.CancelAt,
			thresholds: sub.BillingThresholds != nil, read: read,
		}
		if sub.Customer != nil {
			c.customer = sub.Customer.ID
		}
		var items []*stripe.SubscriptionItem
		if sub.Items != nil {
			items = sub.Items.Data
			if sub.Items.HasMore {
				var err error
				if items, err = v.allItems(ctx, sub.ID); err != nil {
					return nil, err
				}
			}
		}
		for _, it := range items {
			if it != nil && it.Price != nil {
				c.items = append(c.items, item{it.ID, it.Price.ID, it.Created, it.BillingThresholds != nil, metered(it.Price)})
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// allItems lists what a subscription itself shows only the first of.
func (v *resolver) allItems(ctx context.Context, id string) (all []*stripe.SubscriptionItem, err error) {
	err = eachPage("items of subscription "+id, func(after string) (last string, more bool, err error) {
		var list *subscriptionitem.Iter
		found, err := v.read(ctx, "listing the items of "+id, "list", "subscriptions", func(ctx context.Context) error {
			list = v.items.List(&stripe.SubscriptionItemListParams{ListParams: pageParams(ctx, after), Subscription: stripe.String(id)})
			return list.Err()
		})
		if err != nil || !found {
			return "", false, err
		}
		for _, it := range list.SubscriptionItemList().Data {
			if it != nil {
				all, last = append(all, it), it.ID
			}
		}
		return last, list.Meta().HasMore, nil
	})
	return all, err
}

// read makes one request, within the pace. It changes nothing, so a record that waits
// for it surely was not applied.
func (v *resolver) read(ctx context.Context, doing, object, permission string, request func(context.Context) error) (found bool, err error) {
	if err := v.pace.Wait(ctx); err != nil {
		return false, errUnsent(err)
	}
	a := ask(ctx, v.key, request)
	if a.missing() {
		return false, nil
	}
	err = a.failure(doing, object)
	switch {
	case err == nil:
		return true, nil
	case a.Status == http.StatusForbidden:
		err = fmt.Errorf("%w; a restricted key needs read access to %s", err, permission)
	}
	err = fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
	if a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden {
		err = sink.RetryAfter(err, operatorDelay)
	}
	return false, err
}

// metered reports whether usage can stand on an item of a price. One that does not say
// is taken for such.
func metered(p *stripe.Price) bool {
	return p.Recurring == nil || p.Recurring.UsageType != stripe.PriceRecurringUsageTypeLicensed
}
