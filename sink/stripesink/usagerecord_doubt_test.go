package stripesink_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// After a restart, nothing but Stripe's own word tells to which item an earlier attempt
// went. Where it may have been another one, the record is not sent.
func TestDoubtAfterARestart(t *testing.T) {
	t.Parallel()
	const proven, unproven = sink.Delivered, sink.Rejected
	// another is a subscription beside the one that is billed.
	another := func(price, status string) func(*register, stripetest.Subscription) {
		return func(b *register, sub stripetest.Subscription) {
			b.AddSubscription(stripetest.Subscription{Customer: sub.Customer, Status: status, Items: []stripetest.Item{{Price: price}}})
		}
	}
	itself := func(sub stripetest.Subscription) string { return sub.ID }
	item := func(sub stripetest.Subscription) string { return sub.Items[0].ID }
	tests := map[string]struct {
		subject func(stripetest.Subscription) string // nil: the customer
		beside  func(*register, stripetest.Subscription)
		want    sink.Outcome
	}{
		"customer":                        {nil, nil, proven},
		"customer, another price":         {nil, another("price_max", "active"), unproven},
		"customer, canceled subscription": {nil, another("price_sum", "canceled"), unproven},
		"customer, paused subscription":   {nil, another("price_sum", "paused"), unproven},
		"subscription":                    {itself, nil, proven},
		"subscription beside another":     {itself, another("price_sum", "active"), proven},
		"subscription, another price": {itself, func(b *register, sub stripetest.Subscription) {
			b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) {
				s.Items = append(s.Items, stripetest.Item{Price: "price_max"})
			})
		}, unproven},
		"item":                {item, nil, proven},
		"item beside another": {item, another("price_sum", "active"), proven},
		"license": {func(stripetest.Subscription) string { return "key-1" }, func(b *register, sub stripetest.Subscription) {
			b.license(sub, "key-1")
		}, unproven},
		"younger item": {nil, func(b *register, sub stripetest.Subscription) {
			b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) {
				s.Items = []stripetest.Item{{Price: "price_sum"}}
			})
		}, unproven},
	}
	for name, test := range tests {
		inBubble(t, name, func(t *testing.T) {
			b := newRegister(t, byLicense)
			sub := b.subscribe("cus_2", "price_sum")
			r := usage(-5, 7)
			if r.Subject = "cus_2"; test.subject != nil {
				r.Subject = test.subject(sub)
			}
			if test.beside != nil {
				test.beside(b, sub)
			}
			r.Attempt, r.Doubt = 2, true
			posts := b.RequestsTo(postUsage)
			outcome, err := b.deliver(t, r)
			require.Equal(t, test.want, outcome, "%v", err)
			if test.want == unproven {
				require.ErrorContains(t, err, "may be billed already")
				require.Equal(t, posts, b.RequestsTo(postUsage))
				return
			}
			require.EqualValues(t, 7, b.Billed(sub.Items[0].ID, time.Now()))
			r.Doubt = false // a person said so
			outcome, err = b.deliver(t, r)
			require.Equal(t, sink.Delivered, outcome, "%v", err)
		})
	}
}

// The vendor changes Prices while a record is in doubt, and restarts.
func TestDoubtWhilePricesChange(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"", "key-1"} {
		inBubble(t, "to "+subject, func(t *testing.T) {
			prices := []string{"price_sum"}
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
				byLicense(c)
				c.Prices = map[string][]string{feature: prices}
			})
			b.AddPrice(stripetest.Price{ID: "price_sum2", Aggregate: "sum"})
			sub := b.subscribe("cus_2", "price_sum", "price_sum2") // for ten days
			b.license(sub, "key-1")
			r := usage(-5, 7)
			if r.Subject = subject; subject == "" {
				r.Subject = "cus_2"
			}
			b.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"})
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.InDoubt, outcome)
			prices = []string{"price_sum2"}
			b.restart(t)
			r.Attempt, r.Doubt = 2, true
			outcome, err := b.deliver(t, r)
			require.Equal(t, sink.Rejected, outcome)
			require.ErrorContains(t, err, "may be billed already")
			require.EqualValues(t, 7, b.Billed(sub.Items[0].ID, time.Now())+b.Billed(sub.Items[1].ID, time.Now()))
		})
	}
}

// What was proven once is remembered, and what can't be asked waits.
func TestProofOfAPayer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		b.Script(stripetest.Fault{On: "GET"}, stripetest.Fault{Answer: stripetest.Error500, On: "GET"})
		r := usage(-5, 7)
		r.Attempt, r.Doubt = 2, true
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Pending, outcome, "%v", err)
		require.Equal(t, 1, b.Fired())
		lost := stripetest.Fault{Answer: stripetest.Drop, On: "usage_records"}
		b.Script(stripetest.Fault{Answer: stripetest.Throttled, On: "usage_records"}, lost)
		for _, want := range []sink.Outcome{sink.Pending, sink.InDoubt, sink.Delivered} {
			outcome, err = b.deliver(t, r)
			require.Equal(t, want, outcome, "%v", err)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 3, b.RequestsTo("GET /v1/subscriptions"))
		require.EqualValues(t, 7, b.billed(customer))
	})
}

// Once a person has said that it was not recorded, it goes where its subject leads.
func TestDoubtThatAPersonHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, byLicense)
		old, next := b.subscribe("cus_2", "price_sum"), b.subscribe("cus_3", "price_sum")
		b.license(old, "key-1")
		r := usage(-5, 7)
		r.Subject = "key-1"
		b.Script(stripetest.Fault{Answer: stripetest.Drop, On: "usage_records"})
		outcome, _ := b.deliver(t, r)
		require.Equal(t, sink.InDoubt, outcome)
		b.license(old, "")
		b.license(next, "key-1")
		time.Sleep(time.Hour)
		r.Attempt, r.Doubt = 2, true
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Rejected, outcome, "%v", err)
		r.Attempt, r.Doubt = 3, false
		time.Sleep(4 * time.Hour)
		outcome, err = b.deliver(t, r)
		require.Equal(t, sink.Delivered, outcome, "%v", err)
		require.EqualValues(t, 7, b.billed("cus_3"))
	})
}
