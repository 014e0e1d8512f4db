package stripesink_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/sinktest"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestConformanceOfUsageRecords(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			testConformance(t, change)
		})
	}
}

func testConformance(t *testing.T, change func(*stripesink.UsageRecordsConfig)) {
	names := map[sink.Kind]string{sink.Sum: "sum", sink.Max: "max", sink.Last: "last_during_period"}
	billable := func(c *stripesink.UsageRecordsConfig) {
		c.Key = "sk_live_1" // which may look up more customers a second
		c.Prices = map[string][]string{}
		for _, name := range names {
			c.Prices["by-"+name] = []string{"price_" + name}
		}
		if change != nil {
			change(c)
		}
	}
	b, overlaps, customers := newRegister(t, billable), 0, 0
	b.Key, b.Live = "sk_live_1", true
	others := map[string]map[string]string{} // items by customer and price
	h := sinktest.Harness{
		New: func(t testing.TB) sink.Sink {
			overlaps += b.Overlaps()
			b.restart(t)
			return b.sink
		},
		Total: func(_ testing.TB, feature, customer string) int64 {
			if item, ok := others[customer][feature]; ok {
				return b.Billed(item, time.Now())
			}
			return 0
		},
		Feature: func(kind sink.Kind) string { return "by-" + names[kind] },
		Subject: func(testing.TB, int) string {
			customers++
			customer := fmt.Sprintf("cus_kit%d", customers)
			sub := b.subscribe(customer, "price_sum", "price_max", "price_last_during_period")
			others[customer] = map[string]string{}
			for i, feature := range []string{"by-sum", "by-max", "by-last_during_period"} {
				others[customer][feature] = sub.Items[i].ID
			}
			return customer
		},
		Restart: func(t testing.TB, _ sink.Sink) sink.Sink { b.restart(t); return b.sink },
		Unreachable: func(t testing.TB) sink.Sink {
			client, stop := b.Pipe()
			stop()
			return b.through(t, client)
		},
		LostReply: func(t testing.TB) sink.Sink {
			b.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"})
			return b.sink
		},
		Stalled: func(t testing.TB) sink.Sink {
			b.Script(stripetest.Fault{Answer: stripetest.Hang, Applied: true, On: "usage_records"})
			return b.sink
		},
	}
	if change == nil {
		h.Skip = map[string]string{"dimensions": "an item keeps one quantity for each second"}
	}
	sinktest.Run(t, h)
	require.Zero(t, overlaps+b.Overlaps())
}
