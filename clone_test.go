package meter_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// A directory is copied while its meter runs, as by a backup or for a second machine, and
// both are opened: Stripe gets no event twice, bills everything that was counted once,
// and what the copy can't know waits for a person there.
func TestACloneBillsNothingTwice(t *testing.T) {
	t.Parallel()
	for moment, before := range map[string]func(t *testing.T, m *meter.Meter, stripe *stripetest.Server){
		"counted":   func(*testing.T, *meter.Meter, *stripetest.Server) {},
		"delivered": func(t *testing.T, m *meter.Meter, _ *stripetest.Server) { require.NoError(t, m.Flush(t.Context())) },
		"in doubt": func(t *testing.T, m *meter.Meter, stripe *stripetest.Server) {
			lost := stripetest.Fault{Answer: stripetest.Drop, Applied: true}
			stripe.Script(lost, lost, lost, lost) // more than Flush tries
			require.Error(t, m.Flush(t.Context()))
		},
		"not applied": func(t *testing.T, m *meter.Meter, stripe *stripetest.Server) {
			stripe.Script(stripetest.Fault{Answer: stripetest.Throttled, RetryAfter: 1200})
			require.Error(t, m.Flush(t.Context()))
		},
	} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				stripe := stripetest.New()
				stripe.AnyCustomer = true
				stripe.AddMeter(stripetest.Meter{EventName: "calls"})
				client, stop := stripe.Pipe()
				defer stop()
				start := func(name string) *meter.Meter {
					m, err := meter.Open(meter.Config{
						Dir: filepath.Join(outside, name), Window: meter.OnFlush, Logger: slog.New(slog.DiscardHandler),
						Sinks: []meter.Route{{Name: "stripe", Sink: stripesink.New(stripesink.Config{
							Key: "sk_test_1", Meters: map[string]stripesink.Meter{"calls": {EventName: "calls"}}, BaseURL: stripetest.URL, HTTPClient: client,
						})}},
					})
					require.NoError(t, err)
					return m
				}
				original := start("original")
				calls := original.Feature("calls")
				require.NoError(t, calls.Add(t.Context(), "cus_1", 5))
				require.NoError(t, original.Flush(t.Context()))
				require.NoError(t, calls.Add(t.Context(), "cus_1", 7))
				before(t, original, stripe)
				time.Sleep(2 * time.Second) // it syncs
				require.NoError(t, os.CopyFS(filepath.Join(outside, "clone"), os.DirFS(filepath.Join(outside, "original"))))
				clone := start("clone")

				require.NoError(t, calls.Add(t.Context(), "cus_1", 11))
				require.NoError(t, clone.Feature("calls").Add(t.Context(), "cus_1", 13))
				for range 6 { // past every pause between attempts
					time.Sleep(10 * time.Minute)
					_ = original.Flush(t.Context())
					_ = clone.Flush(t.Context())
				}
				require.EqualValues(t, 5+7+11+13, stripe.Total("cus_1", "calls"))
				ids := map[string]bool{}
				for _, e := range stripe.Events() {
					require.False(t, ids[e.Identifier], "sent twice")
					ids[e.Identifier] = true
				}
				require.GreaterOrEqual(t, len(ids), 3)
				require.Zero(t, waiting(original))
				if moment != "delivered" {
					require.EqualValues(t, 7, waiting(clone), "nobody but a person knows what became of it")
				} else {
					require.Zero(t, waiting(clone))
				}
				for _, m := range []*meter.Meter{original, clone} {
					require.NoError(t, m.Books().Check())
					require.NoError(t, m.Shutdown(context.Background()))
				}
			})
		})
	}
}

// waiting is what a person has to decide about.
func waiting(m *meter.Meter) (quantity int64) {
	for r, outcome := range m.Quarantine() {
		if outcome == sink.InDoubt {
			quantity += r.Quantity
		}
	}
	return quantity
}
