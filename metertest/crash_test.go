package metertest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/metertest"
)

func TestCrash(t *testing.T) {
	t.Parallel()
	m := metertest.New(t, func(c *meter.Config) {
		c.Dir, c.Sync = t.TempDir(), meter.SyncAlways // where counts are not mapped, others are lost
	})
	calls := m.Feature("calls")
	require.NoError(t, calls.Add(t.Context(), "cus_1", 2))
	m.RequireBilled(t, "calls", "cus_1", 2)
	require.NoError(t, calls.Add(t.Context(), "cus_1", 3))
	require.NoError(t, calls.AddEvent(t.Context(), meter.Event{ID: "1", Subject: "cus_2", Quantity: 4}))

	next := m.Crash(t)
	require.ErrorIs(t, calls.Add(t.Context(), "cus_1", 1), meter.ErrClosed)
	calls = next.Feature("calls")
	require.EqualValues(t, 5, calls.Total("cus_1").Quantity)
	require.NoError(t, calls.AddEvent(t.Context(), meter.Event{ID: "1", Subject: "cus_2", Quantity: 4}), "it comes again")
	next.RequireBilled(t, "calls", "cus_1", 5)
	next.RequireBilled(t, "calls", "cus_2", 4)
	next.RequireNothingElse(t)
}
