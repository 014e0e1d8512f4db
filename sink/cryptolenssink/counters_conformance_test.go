package cryptolenssink_test

import (
	"testing"

	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/inprocess/meter/sink/sinktest"
)

// levels is a sink that takes nothing but levels, so that every rule tries one.
type levels struct{ *cryptolenssink.Counters }

func (levels) Kinds() []sink.Kind { return []sink.Kind{sink.Last} }

func TestConformanceOfCounters(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		as   func(*cryptolenssink.Counters) sink.Sink
		on   string // what is asked for in vain
		skip map[string]string
	}{
		"sums and levels": {func(c *cryptolenssink.Counters) sink.Sink { return c }, "IncrementIntValue", map[string]string{
			"later attempt": "a record in doubt that its data object doesn't know may be on another key's, and waits for a person"}},
		"levels": {func(c *cryptolenssink.Counters) sink.Sink { return levels{c} }, "SetIntValue", map[string]string{
			"refused kinds": "the sink within takes sums"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVendor()
			open := func() sink.Sink { return test.as(v.counters()) }
			// The answer is lost, and so is that to the question what became of it.
			faulty := func(answer cryptolenstest.Answer) func(testing.TB) sink.Sink {
				return func(testing.TB) sink.Sink {
					v.Script(cryptolenstest.Fault{Answer: answer, Applied: true, On: test.on})
					if answer == cryptolenstest.Drop && test.on == "IncrementIntValue" {
						v.Script(cryptolenstest.Fault{On: "ListDataObjects"}, cryptolenstest.Fault{Answer: cryptolenstest.Drop, On: "ListDataObjects"})
					}
					return open()
				}
			}
			sinktest.Run(t, sinktest.Harness{
				New: func(testing.TB) sink.Sink { v = newVendor(); return open() },
				Total: func(_ testing.TB, of, subject string) int64 {
					return v.count(subject, map[string]string{feature: object, "seats": "seats"}[of])
				},
				Feature: func(kind sink.Kind) string {
					if kind == sink.Last {
						return "seats"
					}
					return feature
				},
				Restart: func(testing.TB, sink.Sink) sink.Sink { return open() },
				Unreachable: func(testing.TB) sink.Sink {
					down := newVendor()
					down.SetDown(true)
					return test.as(v.counters(func(c *cryptolenssink.CountersConfig) { c.HTTPClient = down.Client() }))
				},
				LostReply: faulty(cryptolenstest.Drop),
				Stalled:   faulty(cryptolenstest.Hang),
				Skip:      test.skip,
			})
		})
	}
}
