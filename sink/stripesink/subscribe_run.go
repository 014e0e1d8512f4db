package stripesink

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/customer"
	"github.com/stripe/stripe-go/v76/price"
	"github.com/stripe/stripe-go/v76/subscription"
)

// subscriber subscribes one customer as one configuration says.
type subscriber struct {
	cfg           SubscribeConfig
	prices        price.Client
	customers     customer.Client
	subscriptions subscription.Client

	currency stripe.Currency
	meters   map[string]string // of the prices, from each to its price
}

func newSubscriber(cfg SubscribeConfig, api *stripeapi.API) *subscriber {
	return &subscriber{
		cfg:           cfg,
		prices:        price.Client{B: api.Backend, Key: cfg.Key},
		customers:     customer.Client{B: api.Backend, Key: cfg.Key},
		subscriptions: subscription.Client{B: api.Backend, Key: cfg.Key},
		meters:        map[string]string{},
	}
}

// refuse makes an error of Stripe's and our words.
func (s *subscriber) refuse(why error, format string, args ...any) error {
	text := stripeapi.Clean(fmt.Sprintf(format, args...), s.cfg.Key)
	if why == nil {
		return fmt.Errorf("stripesink: %s", text)
	}
	return fmt.Errorf("%w: %s", why, text)
}

// check looks at the prices and the customer.
func (s *subscriber) check(ctx context.Context) error {
	for _, id := range s.cfg.Prices {
		if err := s.checkPrice(ctx, id); err != nil {
			return err
		}
	}
	var c *stripe.Customer
	a := ask(ctx, s.cfg.Key, func(ctx context.Context) (err error) {
		params := &stripe.CustomerParams{}
		params.Context = ctx
		c, err = s.customers.Get(s.cfg.Customer, params)
		return err
	})
	if err := a.failure("looking for customer "+s.cfg.Customer, "customer"); err != nil {
		return err
	}
	switch {
	case c.Deleted:
		return s.refuse(nil, "customer %s was deleted: subscribe another", s.cfg.Customer)
	case c.Currency != "" && c.Currency != s.currency:
		return s.refuse(ErrCurrency, "customer %s pays in %s, and the prices are in %s: use prices in %s, or another customer",
			s.cfg.Customer, c.Currency, s.currency, c.Currency)
	}
	return nil
}

func (s *subscriber) checkPrice(ctx context.Context, id string) error {
	var p *stripe.Price
	a := ask(ctx, s.cfg.Key, func(ctx context.Context) (err error) {
		params := &stripe.PriceParams{}
		params.Context = ctx
		p, err = s.prices.Get(id, params)
		return err
	})
	if err := a.failure("looking for price "+id, "price"); err != nil {
		return err
	}
	if err := stripeapi.CheckObject(p.Livemode, s.cfg.Key, s.cfg.BaseURL); err != nil {
		return s.refuse(nil, "price %s: %v", id, err)
	}
	s.currency = cmp.Or(s.currency, p.Currency)
	switch {
	case !p.Active:
		return s.refuse(nil, "price %s is archived: use another", id)
	case p.Recurring == nil:
		return s.refuse(nil, "price %s is for a single payment: use a recurring one", id)
	case p.Currency != s.currency:
		return s.refuse(ErrCurrency, "price %s is in %s, and %s in %s: use prices in one", s.cfg.Prices[0], s.currency, id, p.Currency)
	}
	if m := p.Recurring.Meter; m != "" {
		if other, taken := s.meters[m]; taken {
			return s.refuse(nil, "prices %s and %s belong to one billing meter, so all usage would be billed twice: use one of them", other, id)
		}
		s.meters[m] = id
	}
	return nil
}

// run finds the subscription, or makes it.
func (s *subscriber) run(ctx context.Context, round int) (Subscribed, error) {
	found, ended, err := s.find(ctx)
	if err != nil || found.ID != "" {
		return found, err
	}
	params := &stripe.SubscriptionParams{Customer: stripe.String(s.cfg.Customer)}
	for _, id := range s.cfg.Prices {
		params.Items = append(params.Items, &stripe.SubscriptionItemsParams{Price: stripe.String(id)})
	}
	if s.cfg.LicenseKeyID != "" {
		params.Metadata = map[string]string{metadataKey: s.cfg.LicenseKeyID}
	}
	// Nothing but the key keeps Stripe from making it twice. The one that has ended is
	// part of it, so that a customer who canceled may come back on the same day.
	made, err := create(ctx, s.cfg.Key, round, "a subscription of "+s.cfg.Customer, "subscription", params, s.subscriptions.New, ended)
	if err != nil {
		return Subscribed{}, err
	}
	return Subscribed{ID: made.ID, Items: itemsOf(made)}, nil
}

// find looks for the subscription among the customer's, and for one that stands in
// its way. ended is the ID of the latest one that was it and has ended.
func (s *subscriber) find(ctx context.Context) (found Subscribed, ended string, err error) {
	var created int64
	err = eachPage("subscriptions of customer "+s.cfg.Customer, func(after string) (last string, more bool, err error) {
		var list *subscription.Iter
		a := ask(ctx, s.cfg.Key, func(ctx context.Context) error {
			params := &stripe.SubscriptionListParams{ListParams: pageParams(ctx, after)}
			params.Customer, params.Status = stripe.String(s.cfg.Customer), stripe.String("all")
			list = s.subscriptions.List(params)
			return list.Err()
		})
		if err := a.failure("listing the subscriptions of customer "+s.cfg.Customer, "list"); err != nil {
			return "", false, err
		}
		for _, sub := range list.SubscriptionList().Data {
			if sub == nil {
				continue
			}
			last = sub.ID
			if sub.Status == stripe.SubscriptionStatusCanceled || sub.Status == stripe.SubscriptionStatusIncompleteExpired {
				later := sub.Created > created || sub.Created == created && sub.ID > ended
				if ours, shared := s.shares(sub); ours && len(shared) == len(s.cfg.Prices) && later {
					created, ended = sub.Created, sub.ID
				}
				continue
			}
			fits, err := s.judge(sub)
			if err != nil {
				return "", false, err
			}
			if fits && found.ID == "" {
				found = Subscribed{ID: sub.ID, Items: itemsOf(sub), Found: true}
			}
		}
		return last, list.Meta().HasMore, nil
	})
	if err != nil {
		return Subscribed{}, "", err
	}
	return found, ended, nil
}

// judge tells whether a running subscription is the one, or why there can't be one
// more beside it.
func (s *subscriber) judge(sub *stripe.Subscription) (fits bool, err error) {
	if sub.Currency != s.currency {
		return false, s.refuse(ErrCurrency, "customer %s pays for subscription %s in %s, and the prices are in %s: use prices in %s, or another customer",
			s.cfg.Customer, sub.ID, sub.Currency, s.currency, sub.Currency)
	}
	if sub.Items == nil || sub.Items.HasMore {
		return false, s.refuse(nil, "subscription %s doesn't show all its items: look at it in Stripe's dashboard", sub.ID)
	}
	ours, shared := s.shares(sub)
	switch {
	case ours && len(shared) == len(s.cfg.Prices):
		return true, nil
	case ours && len(shared) > 0:
		return false, s.refuse(ErrSubscribed, "subscription %s has price %s, but not all of %v: add the others to it, or cancel it", sub.ID, shared[0], s.cfg.Prices)
	case len(shared) > 0 && sub.Metadata[metadataKey] == "":
		return false, s.refuse(ErrSubscribed, "subscription %s has price %s and belongs to no license key: set its metadata %s, or cancel it", sub.ID, shared[0], metadataKey)
	}
	for _, item := range sub.Items.Data {
		if item == nil || item.Price == nil || item.Price.Recurring == nil || item.Price.Recurring.Meter == "" {
			continue
		}
		if id, same := s.meters[item.Price.Recurring.Meter]; same {
			return false, s.refuse(ErrSubscribed, "subscription %s bills the meter of price %s already, by %s, and a meter counts for the customer as a whole: cancel it, or use another customer",
				sub.ID, id, item.Price.ID)
		}
	}
	return false, nil
}

// shares tells whether a subscription is of our license key, and which of our prices
// it has.
func (s *subscriber) shares(sub *stripe.Subscription) (ours bool, prices []string) {
	items := itemsOf(sub)
	ours = s.cfg.LicenseKeyID == "" || s.cfg.LicenseKeyID == sub.Metadata[metadataKey]
	return ours, slices.DeleteFunc(slices.Clone(s.cfg.Prices), func(id string) bool { return items[id] == "" })
}

func itemsOf(sub *stripe.Subscription) map[string]string {
	items := map[string]string{}
	if sub.Items == nil {
		return items
	}
	for _, item := range sub.Items.Data {
		if item != nil && item.Price != nil {
			items[item.Price.ID] = item.ID
		}
	}
	return items
}
