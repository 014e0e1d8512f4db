package stripesink_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const postUsage = "POST /v1/subscription_items/{id}/usage_records"

// register is a sink of usage records and the Stripe that it leads to, both on the
// clock of a bubble.
type register struct {
	*stripetest.Server
	client *http.Client
	sink   *stripesink.UsageRecords
	change func(*stripesink.UsageRecordsConfig)
	items  map[string]string // first one by customer
	ago    atomic.Int64      // nanoseconds that Stripe's clock is set back
}

// newRegister also has customer subscribed to price_sum, which feature is billed by,
// for ten days.
func newRegister(t *testing.T, change func(*stripesink.UsageRecordsConfig)) *register {
	t.Helper()
	b := &register{Server: stripetest.New(), change: change, items: map[string]string{}}
	b.Key = testKey
	b.Now = func() time.Time { return time.Now().Add(-time.Duration(b.ago.Load())) }
	for _, aggregate := range []string{"sum", "max", "last_during_period", "last_ever"} {
		b.AddPrice(stripetest.Price{ID: "price_" + aggregate, Aggregate: aggregate})
	}
	b.subscribe(customer, "price_sum")
	client, stop := b.Pipe()
	t.Cleanup(stop)
	b.client = client
	b.restart(t)
	return b
}

const day = 24 * time.Hour

// subscribe gives a customer a subscription, as if it had done so ten days ago.
func (b *register) subscribe(customer string, prices ...string) stripetest.Subscription {
	b.ago.Store(int64(10 * day))
	defer b.ago.Store(0)
	b.AddCustomer(stripetest.Customer{ID: customer})
	sub := stripetest.Subscription{Customer: customer, End: time.Now().Add(20 * day)}
	for _, price := range prices {
		sub.Items = append(sub.Items, stripetest.Item{Price: price})
	}
	sub = b.AddSubscription(sub)
	b.items[customer] = sub.Items[0].ID
	return sub
}

// billed is what a customer's first item will be billed for the running period.
func (b *register) billed(customer string) int64 { return b.Billed(b.items[customer], time.Now()) }

// restart forgets all that a process knows.
func (b *register) restart(t testing.TB) { b.sink = b.through(t, b.client) }

// through returns a sink that reaches Stripe through client.
func (b *register) through(t testing.TB, client *http.Client) *stripesink.UsageRecords {
	t.Helper()
	cfg := stripesink.UsageRecordsConfig{
		Key:     testKey,
		Prices:  map[string][]string{feature: {"price_sum"}},
		BaseURL: stripetest.URL, HTTPClient: client,
		Logger: slog.New(slog.DiscardHandler),
	}
	if b.change != nil {
		b.change(&cfg)
	}
	s := stripesink.NewUsageRecords(cfg)
	require.NoError(t, s.Validate())
	return s
}

// usage is a record of the minute that is n minutes after the last whole hour.
func usage(n int, quantity int64) sink.Record {
	r := record(n, quantity)
	r.Start = time.Now().UTC().Truncate(time.Hour).Add(time.Duration(n) * time.Minute)
	r.End = r.Start.Add(time.Minute)
	return r
}

// deliver is one attempt on one record.
func (b *register) deliver(t *testing.T, r sink.Record) (sink.Outcome, error) {
	t.Helper()
	err := b.sink.Deliver(t.Context(), []sink.Record{r})
	return judge(err, 1)[0], err
}

// settle behaves as meter's delivery: what is open is sent again, with the same body
// and the next attempt, as long as the limits allow, and a doubt stays until success
// clears it. It returns InDoubt for what meter would then leave to a person.
func (b *register) settle(ctx context.Context, t *testing.T, records []sink.Record) []sink.Outcome {
	t.Helper()
	final := make([]sink.Outcome, len(records))
	attempts, first := make([]int, len(records)), make([]time.Time, len(records))
	for range 200 {
		var open []sink.Record
		var at []int
		for i, r := range records {
			if attempts[i] < 0 || final[i] != sink.Pending && final[i] != sink.InDoubt {
				continue
			}
			window := b.sink.Limits().DedupeWindow
			if final[i] == sink.InDoubt && window != sink.Forever && time.Since(first[i]) > window-time.Hour {
				attempts[i] = -1
				continue
			}
			if attempts[i]++; attempts[i] == 1 {
				first[i] = time.Now()
			}
			r.Attempt, r.Doubt = max(attempts[i], r.Attempt), r.Doubt || final[i] == sink.InDoubt
			open, at = append(open, r), append(at, i)
		}
		if open == nil {
			break
		}
		err := b.sink.Deliver(ctx, open)
		for j, o := range judge(err, len(open)) {
			switch i := at[j]; {
			case o == sink.Rejected && final[i] == sink.InDoubt:
				attempts[i] = -1
			case o == sink.Delivered || final[i] != sink.InDoubt:
				final[i] = o
			}
		}
		time.Sleep(time.Minute + sink.RetryDelay(err))
	}
	return final
}
