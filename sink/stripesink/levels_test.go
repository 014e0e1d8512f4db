package stripesink_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// levelMeters are the sorts of billing meter that bill a level.
var levelMeters = []stripetest.Meter{
	{EventName: event, Formula: "last"},
	{EventName: event, TimeWindow: "hour"},
	{EventName: event, TimeWindow: "hour", Formula: "last"},
	{EventName: event, TimeWindow: "day"},
}

func level(n int, quantity int64) sink.Record {
	r := record(n, quantity)
	r.Kind = sink.Last
	return r
}

// Levels of each minute of two hours of two days: what each sort of meter bills.
func TestLevels(t *testing.T) {
	t.Parallel()
	for i, want := range []int64{
		9,     // the last one
		5 + 9, // the last one of each hour
		9,     // that of the last hour
		5 + 9, // the last one of each day
	} {
		m := levelMeters[i]
		t.Run(m.Formula+m.TimeWindow, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, m)
			require.NoError(t, b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: sink.Last}}))
			b.setClock(start.Add(25 * time.Hour))
			for _, at := range []int{0, 24 * 60} { // minutes after start
				for n, quantity := range []int64{4, 0, 7, int64(5 + at/360)} {
					require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{level(at+15*n, quantity)}))
				}
			}
			require.Equal(t, want, b.Total(customer, event))
			require.Zero(t, b.Unbilled())
		})
	}
}

// The last second of a window that ends with the hour lies in the hour.
func TestLevelOfTheFullHour(t *testing.T) {
	t.Parallel()
	b := newBench(t, stripetest.Meter{EventName: event, TimeWindow: "hour"})
	b.setClock(start.Add(2 * time.Hour))
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{level(59, 3)}))
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{level(60, 4)}))
	require.EqualValues(t, 7, b.Total(customer, event))
}

func TestEveryFaultKeepsTheLevel(t *testing.T) {
	t.Parallel()
	for _, m := range levelMeters {
		for _, fault := range everyFault {
			for times := 1; times <= 3; times++ {
				inBubble(t, fmt.Sprintf("%s%s %v x%d", m.Formula, m.TimeWindow, fault, times), func(t *testing.T) {
					b := newBench(t, m)
					b.Script(stripetest.Fault{})
					b.Script(slices.Repeat([]stripetest.Fault{fault}, times)...)
					for n, quantity := range []int64{12, 3, 8} { // one after another, as meter sends levels
						require.Equal(t, []sink.Outcome{sink.Delivered}, b.deliverAll(t.Context(), t, []sink.Record{level(n, quantity)}))
					}
					require.EqualValues(t, 8, b.Total(customer, event))
					require.Len(t, b.Events(), 3)
					require.Positive(t, b.Fired())
				})
			}
		}
	}
}

func TestPrepareWantsOneFeatureForALevel(t *testing.T) {
	t.Parallel()
	b := newBench(t, levelMeters[0])
	client, stop := b.Pipe()
	t.Cleanup(stop)
	s := stripesink.New(stripesink.Config{
		Key: testKey, BaseURL: stripetest.URL, HTTPClient: client,
		Meters: map[string]stripesink.Meter{feature: {EventName: event}, "export": {EventName: event}},
	})
	require.NoError(t, s.Validate())
	err := s.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: sink.Last}})
	require.ErrorContains(t, err, `feature "export" has it, too`)
}

// shared is a sink with two features on one meter of a bench.
func shared(t *testing.T, b *bench) (s *stripesink.Sink, other sink.Record) {
	t.Helper()
	client, stop := b.Pipe()
	t.Cleanup(stop)
	other = record(1, 10)
	other.Feature = "export"
	return stripesink.New(stripesink.Config{
		Key: testKey, BaseURL: stripetest.URL, HTTPClient: client,
		Meters: map[string]stripesink.Meter{feature: {EventName: event}, "export": {EventName: event}},
	}), other
}

// meter delivers features side by side; Stripe takes one event at a time.
func TestFeaturesTakeTurnsAtAMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s, other := shared(t, b)
		b.Script(stripetest.Fault{Delay: 10 * time.Second}, stripetest.Fault{}, stripetest.Fault{Delay: 10 * time.Second})
		began := time.Now()
		done := make(chan error)
		go func() { done <- s.Deliver(t.Context(), []sink.Record{record(0, 1)}) }()
		go func() { done <- s.Deliver(t.Context(), []sink.Record{other}) }()
		stranger := record(2, 100)
		stranger.Subject = "cus_2"
		synctest.Wait()
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{stranger}))
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Zero(t, b.Overlaps())
		require.EqualValues(t, 11, b.Total(customer, event))
		require.GreaterOrEqual(t, time.Since(began), 20*time.Second)
	})
}

func TestContextEndsWhileWaitingForATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s, other := shared(t, b)
		b.Script(stripetest.Fault{Delay: 15 * time.Second})
		done := make(chan error)
		go func() { done <- s.Deliver(t.Context(), []sink.Record{record(0, 1)}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Deliver(ctx, []sink.Record{other})
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.Equal(t, 1, b.Requests())
		require.NoError(t, <-done)
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{other}))
		require.EqualValues(t, 11, b.Total(customer, event))
	})
}
