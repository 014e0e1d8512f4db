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

// levels is a sink that takes nothing but levels, so that every rule tries one.
type levels struct{ *stripesink.Sink }

func (levels) Kinds() []sink.Kind { return []sink.Kind{sink.Last} }

func TestConformance(t *testing.T) {
	t.Parallel()
	both := func(s *stripesink.Sink) sink.Sink { return s }
	t.Run("sums and levels", func(t *testing.T) { t.Parallel(); conform(t, both, stripetest.Meter{Formula: "last"}, nil) })
	for _, m := range levelMeters {
		t.Run("levels "+m.Formula+m.TimeWindow, func(t *testing.T) {
			t.Parallel()
			conform(t, func(s *stripesink.Sink) sink.Sink { return levels{s} }, m,
				map[string]string{"refused kinds": "the sink within takes sums"})
		})
	}
}

// conform runs the kit on a sink that bills sums by one meter and levels by another.
func conform(t *testing.T, as func(*stripesink.Sink) sink.Sink, forLevels stripetest.Meter, skip map[string]string) {
	forLevels.EventName = "seats"
	fake, overlaps := stripetest.New(), 0 // the fake is that of the last New
	connect := func(t testing.TB) sink.Sink {
		client, stop := fake.Pipe()
		t.Cleanup(stop)
		return as(stripesink.New(stripesink.Config{
			Key:        testKey,
			Meters:     map[string]stripesink.Meter{feature: {EventName: event}, "seats": {EventName: "seats"}},
			BaseURL:    stripetest.URL,
			HTTPClient: client,
		}))
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
			fake = stripetest.New(stripetest.Meter{EventName: event}, forLevels)
			fake.AnyCustomer = true
			return connect(t)
		},
		Total: func(_ testing.TB, of, subject string) int64 {
			if of == feature {
				return fake.Total(subject, event)
			}
			return fake.Total(subject, "seats")
		},
		Feature: func(kind sink.Kind) string {
			if kind == sink.Last {
				return "seats"
			}
			return feature
		},
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
			return as(newSink(client))
		},
		LostReply: faulty(stripetest.Drop),
		Stalled:   faulty(stripetest.Hang),
		Skip:      skip,
	})
	require.Zero(t, overlaps+fake.Overlaps())
}
