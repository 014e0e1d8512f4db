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
	indexed  []indexed // what search has seen, oldest first
}

type item struct {
	Item
	sub     *subscription
	created time.Time
	removed bool
	usage   map[int64]int64 // quantity by second
}

// AddSubscription adds a subscription and returns it as it is now, with the IDs of
// its items. It panics if an ID is taken, or a customer or price does not exist.
func (s *Server) AddSubscription(sub Subscription) Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addSubscription(sub).copy()
}

// ChangeSubscription changes a subscription, which must exist: its state, its
// metadata, its current period, its items. Items that are no longer among them are
// deleted.
func (s *Server) ChangeSubscription(id string, change func(*Subscription)) Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.roll(s.subscriptions.get(id))
	changed := sub.copy()
	change(&changed)
	changed.ID = id
	if changed.Status == "canceled" {
		s.cancel(sub)
	}
	if !changed.Start.Equal(sub.Start) {
		sub.anchor = changed.Start
	}
	sub.Subscription = changed
	s.setItems(sub)
	sub.index(s.now())
	return sub.copy()
}

// copy is what callers get: they may change it.
func (sub *subscription) copy() Subscription {
	c := sub.Subscription
	c.Items, c.Metadata = slices.Clone(c.Items), maps.Clone(c.Metadata)
	return c
}

func (s *Server) addSubscription(new Subscription) *subscription {
	sub := &subscription{Subscription: new, created: s.now()}
	sub.ID = cmp.Or(sub.ID, s.newID("sub"))
	sub.Status = cmp.Or(sub.Status, "active")
	sub.Items, sub.Metadata = slices.Clone(sub.Items), maps.Clone(sub.Metadata)
	c, found := s.customer(sub.Customer)
	if !found || len(sub.Items) == 0 {
		panic(fmt.Sprintf("stripetest: subscription %s must have items, and a customer who was added", sub.ID))
	}
	p := s.prices.get(sub.Items[0].Price)
	c.Currency = cmp.Or(c.Currency, p.Currency)
	if sub.Start.IsZero() {
		sub.Start = s.now()
	}
	sub.Start = sub.Start.Truncate(time.Second).UTC()
	sub.anchor = sub.Start
	if sub.End.IsZero() {
		sub.End = p.after(sub.anchor, 1)
	}
	sub.End = sub.End.Truncate(time.Second).UTC()
	s.subscriptions.add(sub.ID, sub)
	s.setItems(sub)
	sub.index(sub.created)
	return sub
}

// setItems makes the items of sub those that it says it has.
func (s *Server) setItems(sub *subscription) {
	for i := range sub.Items {
		it := &sub.Items[i]
		s.prices.get(it.Price)
		it.ID = cmp.Or(it.ID, s.newID("si"))
		if known, found := s.items.byID[it.ID]; found && known.sub == sub {
			known.Item = *it
			continue
		}
		s.items.add(it.ID, &item{Item: *it, sub: sub, created: s.now(), usage: map[int64]int64{}})
	}
	for _, it := range s.items.byID {
		if it.sub == sub {
			it.removed = !slices.ContainsFunc(sub.Items, func(kept Item) bool { return kept.ID == it.ID })
		}
	}
}

func (s *Server) cancel(sub *subscription) {
	if sub.Status != "canceled" {
		sub.Status, sub.canceled = "canceled", s.now()
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
		"cancel_at_period_end": sub.CancelAtPeriodEnd, "cancel_at": nil,
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
