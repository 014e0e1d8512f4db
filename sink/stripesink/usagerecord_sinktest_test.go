package stripesink_test

import (
	"fmt"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/sinktest"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestConformanceOfUsageRecords(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		for kind, aggregate := range map[sink.Kind]string{sink.Sum: "sum", sink.Max: "max", sink.Last: "last_during_period"} {
			if way == "increment" && kind != sink.Sum {
				continue
			}
			t.Run(way+" "+kind.String(), func(t *testing.T) {
				t.Parallel()
				testConformance(t, change, kind, "price_"+aggregate)
			})
		}
	}
}

// ofKind is a sink for one kind: of a customer with several items it would not know,
// after a restart, which of them a record in doubt was sent to.
type ofKind struct {
	*stripesink.UsageRecords
	kind sink.Kind
}

func (o ofKind) Kinds() []sink.Kind { return []sink.Kind{o.kind} }

func testConformance(t *testing.T, change func(*stripesink.UsageRecordsConfig), kind sink.Kind, price string) {
	billable := func(c *stripesink.UsageRecordsConfig) {
		c.Key = "sk_live_1" // which may look up more customers a second
		c.Prices = map[string][]string{feature: {price}}
		if change != nil {
			change(c)
		}
	}
	b, overlaps, customers := newRegister(t, billable), 0, 0
	b.Key, b.Live = "sk_live_1", true
	of := func(s *stripesink.UsageRecords) sink.Sink { return ofKind{s, kind} }
	h := sinktest.Harness{
		New: func(t testing.TB) sink.Sink {
			overlaps += b.Overlaps()
			b.restart(t)
			return of(b.sink)
		},
		Total: func(_ testing.TB, _, customer string) int64 {
			if _, ok := b.items[customer]; ok {
				return b.billed(customer)
			}
			return 0
		},
		Feature: func(sink.Kind) string { return feature },
		Subject: func(testing.TB, int) string {
			customers++
			customer := fmt.Sprintf("cus_kit%d", customers)
			b.subscribe(customer, price)
			return customer
		},
		Restart: func(t testing.TB, _ sink.Sink) sink.Sink { b.restart(t); return of(b.sink) },
		Unreachable: func(t testing.TB) sink.Sink {
			client, stop := b.Pipe()
			stop()
			return of(b.through(t, client))
		},
		LostReply: func(t testing.TB) sink.Sink {
			b.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"})
			return of(b.sink)
		},
		Stalled: func(t testing.TB) sink.Sink {
			b.Script(stripetest.Fault{Answer: stripetest.Hang, Applied: true, On: "usage_records"})
			return of(b.sink)
		},
	}
	if change == nil {
		h.Skip = map[string]string{
			"dimensions": "an item keeps one quantity for each second", "refused kinds": "ofKind refuses none",
		}
	}
	sinktest.Run(t, h)
	require.Zero(t, overlaps+b.Overlaps())
}
