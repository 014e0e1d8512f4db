package stripesink_test

import (
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/sinktest"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	fake, overlaps := stripetest.New(), 0 // the fake is that of the last New
	connect := func(t testing.TB) sink.Sink {
		client, stop := fake.Pipe()
		t.Cleanup(stop)
		return stripesink.New(stripesink.Config{
			Key:        testKey,
			Meters:     map[string]stripesink.Meter{feature: {EventName: event}},
			BaseURL:    stripetest.URL,
			HTTPClient: client,
		})
	}
	faulty := func(answer stripetest.Answer) func(testing.TB) sink.Sink {
		return func(t testing.TB) sink.Sink {
			fake.Script(stripetest.Fault{Answer: answer, Applied: true})
			return connect(t)
		}
	}
	sinktest.Run(t, sinktest.Harness{
		New: func(t testing.TB) sink.Sink {
			overlaps += fake.Overlaps()
			fake = stripetest.New(stripetest.Meter{EventName: event})
			fake.AnyCustomer = true
			return connect(t)
		},
		Total:   func(_ testing.TB, _, subject string) int64 { return fake.Total(subject, event) },
		Feature: func(sink.Kind) string { return feature },
		Subject: func(_ testing.TB, n int) string { return fmt.Sprintf("cus_%d", n) },
		Series: func(t testing.TB, _, subject string, dimensions map[string]string) (total int64) {
			for _, e := range fake.Events() {
				want := map[string]string{"stripe_customer_id": subject, "value": e.Payload["value"]}
				maps.Copy(want, dimensions)
				if maps.Equal(e.Payload, want) {
					value, err := strconv.ParseInt(e.Payload["value"], 10, 64)
					require.NoError(t, err)
					total += value
				}
			}
			return total
		},
		Restart: func(t testing.TB, _ sink.Sink) sink.Sink { return connect(t) },
		Unreachable: func(t testing.TB) sink.Sink {
			client, stop := fake.Pipe()
			stop()
			return newSink(client)
		},
		LostReply: faulty(stripetest.Drop),
		Stalled:   faulty(stripetest.Hang),
	})
	require.Zero(t, overlaps+fake.Overlaps())
}
