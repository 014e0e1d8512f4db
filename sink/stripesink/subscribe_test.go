package stripesink_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// newStall is a shop with a customer, a billing meter, and prices: a legacy one, one of
// the meter, and another one of the meter.
func newStall(t *testing.T) *shop {
	t.Helper()
	s := newShop(t, stripetest.Meter{ID: "mtr_1", EventName: event})
	s.AddCustomer(stripetest.Customer{ID: customer})
	s.AddPrice(stripetest.Price{ID: "price_legacy"})
	s.AddPrice(stripetest.Price{ID: "price_meter", Meter: "mtr_1"})
	s.AddPrice(stripetest.Price{ID: "price_old", Meter: "mtr_1"})
	s.AddPrice(stripetest.Price{ID: "price_eur", Currency: "eur"})
	s.AddPrice(stripetest.Price{ID: "price_gone", Archived: true})
	return s
}

func (s *shop) subscribe(change func(*stripesink.SubscribeConfig)) (stripesink.Subscribed, error) {
	c := stripesink.SubscribeConfig{
		Key: testKey, Customer: customer, Prices: []string{"price_legacy", "price_meter"},
		BaseURL: stripetest.URL, HTTPClient: s.client,
	}
	if change != nil {
		change(&c)
	}
	return stripesink.Subscribe(s.t.Context(), c)
}

func (s *shop) running() []map[string]any { return s.list("/v1/subscriptions?customer=" + customer) }

func TestSubscribe(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	done, err := s.subscribe(func(c *stripesink.SubscribeConfig) { c.LicenseKeyID = "4711" })
	require.NoError(t, err)
	require.False(t, done.Found)
	require.Len(t, done.Items, 2)
	require.Contains(t, done.Items["price_legacy"], "si_")

	all := s.running()
	require.Len(t, all, 1)
	require.Equal(t, done.ID, all[0]["id"])
	require.Equal(t, map[string]any{"skm_key_id": "4711"}, all[0]["metadata"])

	again, err := s.subscribe(func(c *stripesink.SubscribeConfig) { c.LicenseKeyID = "4711" })
	require.NoError(t, err)
	require.True(t, again.Found)
	again.Found = false
	require.Equal(t, done, again)
	again, err = s.subscribe(nil) // whatever license key
	require.NoError(t, err)
	require.Equal(t, done.ID, again.ID)
	require.Equal(t, 1, s.RequestsTo("POST /v1/subscriptions"))
}

func TestSubscribeAfterEveryFault(t *testing.T) {
	t.Parallel()
	steps := 0
	synctest.Test(t, func(t *testing.T) {
		s := newStall(t)
		_, err := s.subscribe(nil)
		require.NoError(t, err)
		steps = s.Requests()
	})
	require.Equal(t, 5, steps)
	for _, fault := range everyFault {
		inBubble(t, fault.String(), func(t *testing.T) {
			for step := range steps {
				s := newStall(t)
				for range step {
					s.Script(stripetest.Fault{})
				}
				s.Script(fault)
				for failures := 0; ; failures++ {
					if _, err := s.subscribe(nil); err == nil {
						break
					}
					require.Less(t, failures, 3)
				}
				require.Equal(t, 1, s.Fired())
				require.Len(t, s.running(), 1)
			}
		})
	}
}

// Nothing but the key keeps Stripe from making two.
func TestSubscribeAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() { _, _ = s.subscribe(nil) })
	}
	running.Wait()
	_, err := s.subscribe(nil)
	require.NoError(t, err)
	require.Len(t, s.running(), 1)
}

// Within a day Stripe answers the same request from memory, with the subscription that
// has ended since; perhaps without saying so.
func TestSubscribeAgainAfterCanceling(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	direct := s.client.Transport
	s.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
		resp, err := direct.RoundTrip(r)
		if err == nil {
			resp.Header.Del("Idempotent-Replayed")
		}
		return resp, err
	})
	var ids []string
	for range 3 {
		done, err := s.subscribe(nil)
		require.NoError(t, err)
		require.False(t, done.Found)
		require.NotContains(t, ids, done.ID)
		ids = append(ids, done.ID)
		require.Len(t, s.running(), 1)
		s.ChangeSubscription(done.ID, func(sub *stripetest.Subscription) { sub.Status = "canceled" })
	}
}

func TestSubscribeRefuses(t *testing.T) {
	t.Parallel()
	prices := func(ids ...string) func(*stripesink.SubscribeConfig) {
		return func(c *stripesink.SubscribeConfig) { c.Prices = ids }
	}
	has := func(metadata map[string]string, ids ...string) func(*shop) {
		return func(s *shop) {
			sub := stripetest.Subscription{ID: "sub_1", Customer: customer, Metadata: metadata}
			for _, id := range ids {
				sub.Items = append(sub.Items, stripetest.Item{Price: id})
			}
			s.AddSubscription(sub)
		}
	}
	key := func(id string, ids ...string) func(*stripesink.SubscribeConfig) {
		return func(c *stripesink.SubscribeConfig) { c.LicenseKeyID, c.Prices = id, ids }
	}
	tests := map[string]struct {
		stripe func(*shop) // nil: as it is
		config func(*stripesink.SubscribeConfig)
		is     error // nil: none of the named ones
		says   string
	}{
		"second currency": {has(nil, "price_eur"), prices("price_legacy"), stripesink.ErrCurrency,
			"customer cus_1 pays in eur, and the prices are in usd"},
		"second currency of a subscription": {func(s *shop) {
			has(nil, "price_eur")(s)
			s.ChangeCustomer(customer, func(c *stripetest.Customer) { c.Currency = "" })
		}, prices("price_legacy"), stripesink.ErrCurrency, "customer cus_1 pays for subscription sub_1 in eur"},
		"two currencies": {nil, prices("price_legacy", "price_eur"), stripesink.ErrCurrency, "price price_legacy is in usd, and price_eur in eur"},
		"two prices of a meter": {nil, prices("price_meter", "price_old"), nil,
			"prices price_meter and price_old belong to one billing meter"},
		"archived price":   {nil, prices("price_gone"), nil, "price price_gone is archived"},
		"no such price":    {nil, prices("price_none"), nil, "looking for price price_none"},
		"no such customer": {nil, func(c *stripesink.SubscribeConfig) { c.Customer = "cus_2" }, nil, "looking for customer cus_2"},
		"deleted customer": {func(s *shop) {
			s.ChangeCustomer(customer, func(c *stripetest.Customer) { c.Deleted = true })
		}, nil, nil, "customer cus_1 was deleted"},
		"some of the prices": {has(nil, "price_legacy"), nil, stripesink.ErrSubscribed, "sub_1 has price price_legacy, but not all of [price_legacy price_meter]"},
		"license unknown":    {has(nil, "price_legacy"), key("7", "price_legacy"), stripesink.ErrSubscribed, "belongs to no license key"},
		"meter of another license": {has(map[string]string{"skm_key_id": "6"}, "price_meter"), key("7", "price_meter"),
			stripesink.ErrSubscribed, "subscription sub_1 bills the meter of price price_meter already"},
		"meter by another price": {has(nil, "price_old"), nil, stripesink.ErrSubscribed, "by price_old"},
		"other mode": {func(s *shop) { s.Live = true }, func(c *stripesink.SubscribeConfig) {
			c.BaseURL, c.HTTPClient = gateway(c.HTTPClient)
		}, nil, "it belongs to live mode"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStall(t)
			if test.stripe != nil {
				test.stripe(s)
			}
			_, err := s.subscribe(test.config)
			require.ErrorContains(t, err, test.says)
			for _, named := range []error{stripesink.ErrCurrency, stripesink.ErrSubscribed} {
				if test.is == named {
					require.ErrorIs(t, err, named)
				} else {
					require.NotErrorIs(t, err, named)
				}
			}
			require.Zero(t, s.RequestsTo("POST /v1/subscriptions"))
		})
	}
}

// A customer with two license keys pays for each, by legacy prices.
func TestSubscribeEachLicense(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	ids := map[string]bool{}
	for _, key := range []string{"1", "2", "1", "2"} {
		done, err := s.subscribe(func(c *stripesink.SubscribeConfig) { c.LicenseKeyID, c.Prices = key, []string{"price_legacy"} })
		require.NoError(t, err)
		ids[done.ID] = true
	}
	require.Len(t, ids, 2)
}

// What a subscription has beside it does no harm, nor do those that have ended.
func TestSubscribeBesideOthers(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	s.AddPrice(stripetest.Price{ID: "price_base", UsageType: "licensed"})
	for range 120 {
		s.AddSubscription(stripetest.Subscription{Customer: customer, Status: "canceled", Items: []stripetest.Item{{Price: "price_meter"}}})
	}
	s.AddSubscription(stripetest.Subscription{Customer: customer, Items: []stripetest.Item{{Price: "price_base"}}})
	s.AddCustomer(stripetest.Customer{ID: "cus_other"})
	s.AddSubscription(stripetest.Subscription{Customer: "cus_other", Items: []stripetest.Item{{Price: "price_meter"}}})
	done, err := s.subscribe(func(c *stripesink.SubscribeConfig) { c.Prices = []string{"price_meter"} })
	require.NoError(t, err)
	require.False(t, done.Found)
	require.Len(t, s.running(), 2)
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newStall(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := stripesink.Subscribe(ctx, stripesink.SubscribeConfig{
		Key: testKey, Customer: customer, Prices: []string{"price_legacy"}, BaseURL: stripetest.URL, HTTPClient: s.client,
	})
	require.ErrorContains(t, err, "context canceled")
	require.Zero(t, s.Requests())
}
