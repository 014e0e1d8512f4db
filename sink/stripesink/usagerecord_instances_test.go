package stripesink_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// instance is one of several processes that count for the same customer.
type instance struct {
	*register
	number  int
	pending []sink.Record
}

// count makes records as a ledger of the instance does: with windows that begin as far
// apart as the sink says, and end early or late.
func (i *instance) count(random *rand.Rand, kind sink.Kind, n int) (records []sink.Record) {
	apart := i.sink.Limits().MinWindow
	at := time.Now().UTC().Truncate(time.Second).Add(-time.Duration(n) * 2 * time.Minute)
	for k := range n {
		length := max(apart, time.Duration(1+random.IntN(100))*time.Second)
		end := at.Add(length)
		if random.IntN(4) == 0 {
			end = at.Add(time.Second) // stopped, and started again
		}
		records = append(records, sink.Record{
			ID: fmt.Sprintf("i%d-%d", i.number, k), Feature: feature, Subject: customer, Kind: kind,
			Quantity: 1 + random.Int64N(1000), Start: at, End: end, Attempt: 1, Instance: i.number,
		})
		at = at.Add(length)
	}
	return records
}

// Several processes bill one item at the same time, each with restarts and with a
// Stripe that fails every other request.
func TestInstancesBillTheExactSum(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			instances := 1 + int(seed%4)
			change := func(c *stripesink.UsageRecordsConfig) { c.Instances = instances }
			first := newRegister(t, change)
			var all []*instance
			want, most := int64(0), 0
			for n := range instances {
				i := &instance{register: first, number: n}
				if n > 0 {
					i.register = &register{Server: first.Server, client: first.client, change: change, items: first.items}
					i.restart(t)
				}
				i.pending = i.count(random, sink.Sum, 25)
				for _, r := range i.pending {
					want += r.Quantity
				}
				most += len(i.pending)
				all = append(all, i)
			}
			for range 10 * most {
				fault := stripetest.Fault{On: "usage_records"}
				if random.IntN(2) == 0 {
					fault = everyFault[random.IntN(len(everyFault))]
					fault.On = "usage_records"
				}
				first.Script(fault)
			}
			for range 1000 {
				i := all[random.IntN(len(all))]
				if len(i.pending) == 0 {
					continue
				}
				n := 1 + random.IntN(min(len(i.pending), 5))
				err := i.sink.Deliver(t.Context(), i.pending[:n])
				var open []sink.Record
				for k, outcome := range judge(err, n) {
					require.NotEqual(t, sink.Rejected, outcome, "%v", err)
					if r := i.pending[k]; outcome != sink.Delivered {
						r.Attempt++
						r.Doubt = r.Doubt || outcome == sink.InDoubt
						open = append(open, r)
					}
				}
				i.pending = append(i.pending[n:], open...)
				if random.IntN(5) == 0 {
					i.restart(t)
				}
				time.Sleep(time.Second + min(sink.RetryDelay(err), time.Minute))
			}
			for _, i := range all {
				require.Empty(t, i.pending)
			}
			require.Equal(t, want, first.billed(customer))
			require.Positive(t, first.Fired())

			seconds := map[int64]bool{}
			for _, r := range first.UsageRecords(first.items[customer]) {
				seconds[r.Timestamp] = true
				require.Equal(t, "set", r.Action)
			}
			require.Len(t, seconds, most)
		})
	}
}

// A record of an instance that nobody made room for would share seconds with another's.
func TestUnknownInstanceWaits(t *testing.T) {
	t.Parallel()
	b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Instances = 2 })
	for _, number := range []int{-1, 2, 60} {
		r := usage(-5, 1)
		r.Instance = number
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Pending, outcome)
		require.ErrorContains(t, err, fmt.Sprintf("instance %d, and UsageRecordsConfig.Instances is 2", number))
	}
	require.Zero(t, b.Requests())
}

// Levels: the highest, and the last, of all that was set.
func TestLevelsAreBilledAsTheirPriceSays(t *testing.T) {
	t.Parallel()
	for aggregate, want := range map[string]int64{"max": 40, "last_during_period": 7, "last_ever": 7} {
		inBubble(t, aggregate, func(t *testing.T) {
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
				c.Prices = map[string][]string{feature: {"price_" + aggregate}}
			})
			b.subscribe("cus_2", "price_"+aggregate)
			kind := sink.Last
			if aggregate == "max" {
				kind = sink.Max
			}
			require.NoError(t, b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: kind}}))
			var records []sink.Record
			for n, level := range []int64{12, 40, 0, 7} {
				r := usage(n-10, level)
				r.Kind, r.Subject = kind, "cus_2"
				records = append(records, r)
			}
			for _, outcome := range b.settle(t.Context(), t, records) {
				require.Equal(t, sink.Delivered, outcome)
			}
			require.Equal(t, want, b.billed("cus_2"))
		})
	}
}
