package cryptolenssink_test

import (
	"testing"

	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/inprocess/meter/sink/sinktest"
	"github.com/stretchr/testify/require"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	twice := "sends twice what is in doubt, as it was told"
	once := "takes what is in doubt for recorded, as it was told"
	for doubt, skip := range map[cryptolenssink.Doubt]map[string]string{
		cryptolenssink.Quarantine: nil,
		cryptolenssink.Resend:     {"same ID again": twice, "same ID after a restart": twice, "lost reply": twice, "stalled call": twice},
		cryptolenssink.Assume:     {"later attempt": once, "lost reply": once, "stalled call": once},
	} {
		t.Run(doubt.String(), func(t *testing.T) {
			t.Parallel()
			v, overlaps := newVendor(), 0
			open := func() sink.Sink {
				return v.sink(func(c *cryptolenssink.Config) { c.Doubt = doubt })
			}
			faulty := func(answer cryptolenstest.Answer) func(testing.TB) sink.Sink {
				return func(testing.TB) sink.Sink {
					v.Script(cryptolenstest.Fault{Answer: answer, Applied: true})
					return open()
				}
			}
			sinktest.Run(t, sinktest.Harness{
				New: func(testing.TB) sink.Sink {
					overlaps += v.Overlaps()
					v = newVendor()
					return open()
				},
				Feature: func(sink.Kind) string { return feature },
				Total:   func(_ testing.TB, _, subject string) int64 { return v.total(subject) },
				Restart: func(testing.TB, sink.Sink) sink.Sink { return open() },
				Unreachable: func(testing.TB) sink.Sink {
					down := newVendor()
					down.SetDown(true)
					return v.sink(func(c *cryptolenssink.Config) { c.Doubt, c.HTTPClient = doubt, down.Client() })
				},
				LostReply: faulty(cryptolenstest.Drop),
				Stalled:   faulty(cryptolenstest.Hang),
				Skip:      skip,
			})
			require.Zero(t, overlaps+v.Overlaps())
		})
	}
}
