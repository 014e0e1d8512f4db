package meter

import (
	"context"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
)

func TestDecisionsAreCounted(t *testing.T) {
	t.Parallel()
	for _, inShadow := range []bool{false, true} {
		provider := &recorder{}
		m := open(t, func(c *Config) {
			c.MeterProvider, c.Shadow = provider, inShadow
			c.Checker = static(map[string]license.Verdict{
				"good": allowed("s"), "unpaid": {Status: license.Denied, Reason: license.Unpaid, Subject: "s"},
				"made up": {Status: license.Denied, Reason: "for cus_1 of key 4711", Subject: "s"},
			})
		})
		f, again, other := m.Feature("f", Rate(0.001, 2)), m.Feature("f", Quantity(3)), m.Feature("other")
		nothing := func(context.Context) error { return nil }
		run := func(f *Feature, key string) {
			_ = Do(WithCaller(t.Context(), Caller{Key: license.NewKey(key)}), f, nothing)
		}
		for range 3 {
			run(f, "good")
		}
		run(again, "good")
		for _, key := range []string{"unpaid", "made up", "made up", "?", "", "down"} {
			run(again, key)
		}
		run(other, "good")

		labels := func(feature, decision string) attribute.Set {
			return attribute.NewSet(attribute.String("meter.feature", feature), attribute.String("meter.decision", decision), attribute.Bool("meter.shadow", inShadow))
		}
		require.Equal(t, map[attribute.Set]int64{
			labels("f", "allowed"): 2, labels("f", "too-fast"): 2, labels("f", "unpaid"): 1, labels("f", "other"): 2,
			labels("f", "not-found"): 1, labels("f", "no-key"): 1, labels("f", "unavailable"): 1,
			labels("other", "allowed"): 1,
		}, provider.collect(t)["meter.decisions"])
		unbilled := provider.collect(t)["meter.unbilled"]
		if !inShadow {
			require.Empty(t, unbilled)
			continue
		}
		require.Equal(t, map[attribute.Set]int64{attribute.NewSet(attribute.String("meter.feature", "f")): 9}, unbilled, "3 calls of 3 units")
		require.NoError(t, m.Shutdown(t.Context()))
		run(f, "good")
		require.EqualValues(t, 2, f.decisions.by[len(outcomes)-2].Load(), "refused because nothing can be counted")
	}
}

func TestOutcomesAreReasons(t *testing.T) {
	t.Parallel()
	require.Len(t, outcomes, len(reasons)+2)
	for reason := range reasons {
		require.Contains(t, outcomes, string(reason))
	}
}

func TestNobodyCollectsDecisions(t *testing.T) {
	t.Parallel()
	m := open(t, shadow)
	f := m.Feature("f")
	require.Nil(t, f.decisions)
	require.NoError(t, Do(t.Context(), f, func(context.Context) error { return nil }))
}
