package stripetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Subscription binds a customer to prices. Customer and Items are required.
//
// Concurrency: a plain value; treat Items and Metadata as read-only.
type Subscription struct {
	ID                string // "": made up
	Customer          string // must exist
	Status            string // "": active
	Items             []Item
	Start, End        time.Time // current period; zero: now, and one interval of the prices later
	CancelAt          time.Time // when it will be canceled; zero: no such time
	CancelAtPeriodEnd bool
	CollectionPaused  bool              // pause_collection is set, which leaves Status as it is
	AmountThreshold   int64             // billing_thresholds.amount_gte; 0: none
	Metadata          map[string]string // nil: none
}

// Item is one price of a subscription. Price is required.
//
// Concurrency: a plain value.
type Item struct {
	ID             string // "": made up
	Price          string // must exist
	UsageThreshold int64  // billing_thresholds.usage_gte; 0: none
}

type subscription struct {
	Subscription
	created  time.Time
	anchor   time.Time // periods are counted from here
	canceled time.Time // zero: it is not
	past     []period  // oldest first
	items    []*item   // deleted ones, too
	indexed  []indexed // what search has seen, oldest first
}

type item struct {
	Item
	sub     *subscription
	created time.Time
	deleted bool
	usage   map[int64]int64 // quantity by second
}

// AddSubscription adds a subscription and returns it as it is now, with the IDs of
// its items. It panics if an ID is taken, or a customer or price does not exist.
func (s *Server) AddSubscription(sub Subscription) Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addSubscription(sub).copy()
}

// ChangeSubscription changes a subscription, which must exist, and returns it as it
// is then. Items that are no longer in it are deleted. A later Start ends the period
// that ran until then.
func (s *Server) ChangeSubscription(id string, change func(*Subscription)) Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.roll(s.subscriptions.get(id))
	before, now := sub.current(), s.now()
	changed := sub.copy()
	change(&changed)
	changed.ID, changed.Customer = id, sub.Customer
	if changed.Status == "canceled" && sub.Status != "canceled" {
		sub.canceled = now
	}
	sub.Subscription = changed
	s.complete(sub, before)
	if sub.Start.After(before.start) {
		sub.past = append(sub.past, period{before.start, sub.Start})
	}
	sub.index(now)
	return sub.copy()
}

// copy is what callers get: they may change it.
func (sub *subscription) copy() Subscription {
	c := sub.Subscription
	c.Items, c.Metadata = slices.Clone(c.Items), maps.Clone(c.Metadata)
	return c
}

func (s *Server) addSubscription(given Subscription) *subscription {
	sub := &subscription{Subscription: given, created: s.now()}
	sub.ID = cmp.Or(sub.ID, s.newID("sub"))
	sub.Subscription = sub.copy()
	c, found := s.customer(sub.Customer)
	if !found {
		panic(fmt.Sprintf("stripetest: subscription %s: there is no customer %q", sub.ID, sub.Customer))
	}
	s.complete(sub, period{})
	c.Currency = cmp.Or(c.Currency, s.prices.get(sub.Items[0].Price).Currency)
	s.subscriptions.add(sub.ID, sub)
	sub.index(sub.created)
	return sub
}

// complete brings the defaults, the items and the period of sub in order; its period
// was the one before.
func (s *Server) complete(sub *subscription, before period) {
	sub.Status = cmp.Or(sub.Status, "active")
	must("Subscription.Status", sub.Status, "active", "trialing", "past_due", "unpaid", "canceled", "paused",
		"incomplete", "incomplete_expired")
	if len(sub.Items) == 0 {
		panic(fmt.Sprintf("stripetest: subscription %s has no items", sub.ID))
	}
	s.setItems(sub)
	sub.setPeriod(s.prices.get(sub.Items[0].Price), before, s.now())
}

// setItems makes the items of sub those that it says it has.
func (s *Server) setItems(sub *subscription) {
	for _, it := range sub.items {
		it.deleted = true
	}
	for i := range sub.Items {
		want := &sub.Items[i]
		s.prices.get(want.Price)
		want.ID = cmp.Or(want.ID, s.newID("si"))
		it, known := s.items.byID[want.ID]
		if !known || it.sub != sub {
			it = &item{sub: sub, created: s.now(), usage: map[int64]int64{}}
			s.items.add(want.ID, it)
			sub.items = append(sub.items, it)
		}
		it.Item, it.deleted = *want, false
	}
}

func (s *Server) cancel(sub *subscription, at time.Time) {
	if sub.Status != "canceled" {
		sub.Status, sub.canceled = "canceled", at
		sub.index(at)
	}
}

func (s *Server) subscriptionObject(sub *subscription) object {
	items := []any{}
	for _, it := range sub.Items {
		items = append(items, s.itemObject(s.items.byID[it.ID]))
	}
	var thresholds, paused any
	if sub.AmountThreshold != 0 {
		thresholds = object{"amount_gte": sub.AmountThreshold, "reset_billing_cycle_anchor": false}
	}
	if sub.CollectionPaused {
		paused = object{"behavior": "keep_as_draft", "resumes_at": nil}
	}
	return object{
		"id": sub.ID, "object": "subscription", "customer": sub.Customer, "status": sub.Status,
		"created": sub.created.Unix(), "start_date": sub.created.Unix(), "livemode": s.Live,
		"current_period_start": sub.Start.Unix(), "current_period_end": sub.End.Unix(),
		"billing_cycle_anchor": sub.anchor.Unix(), "billing_cycle_anchor_config": nil, "billing_thresholds": thresholds,
		"cancel_at_period_end": sub.CancelAtPeriodEnd, "cancel_at": unixOrNull(sub.CancelAt),
		"canceled_at": unixOrNull(sub.canceled), "ended_at": unixOrNull(sub.canceled),
		"cancellation_details": object{"comment": nil, "feedback": nil, "reason": nil},
		"collection_method":    "charge_automatically", "currency": s.prices.byID[sub.Items[0].Price].Currency,
		"items": object{
			"object": "list", "url": "/v1/subscription_items?subscription=" + sub.ID,
			"has_more": false, "data": items,
		},
		"metadata": orEmpty(sub.Metadata), "pause_collection": paused,
		"application": nil, "application_fee_percent": nil, "automatic_tax": object{"enabled": false, "liability": nil},
		"days_until_due": nil, "default_payment_method": nil, "default_source": nil, "default_tax_rates": []any{},
		"description": nil, "discount": nil, "discounts": []any{}, "latest_invoice": nil,
		"next_pending_invoice_item_invoice": nil, "on_behalf_of": nil,
		"payment_settings": object{
			"payment_method_options": nil, "payment_method_types": nil, "save_default_payment_method": "off",
		},
		"pending_invoice_item_interval": nil, "pending_setup_intent": nil, "pending_update": nil, "schedule": nil,
		"test_clock": nil, "transfer_data": nil, "trial_end": nil, "trial_start": nil,
		"trial_settings": object{"end_behavior": object{"missing_payment_method": "create_invoice"}},
	}
}

func (s *Server) itemObject(it *item) object {
	var thresholds any
	if it.UsageThreshold != 0 {
		thresholds = object{"usage_gte": it.UsageThreshold}
	}
	p := s.prices.byID[it.Price]
	o := object{
		"id": it.ID, "object": "subscription_item", "created": it.created.Unix(), "metadata": object{},
		"price": s.priceObject(p), "subscription": it.sub.ID, "billing_thresholds": thresholds,
		"discounts": []any{}, "tax_rates": []any{},
	}
	if p.UsageType == "licensed" {
		o["quantity"] = 1 // a metered item has none
	}
	return o
}

func unixOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}
