package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// everyFault is each way to fail on either side of the record being made. Stripe
// throttles before it works on a request, and nobody but Stripe answers 200.
var everyFault = []stripetest.Fault{
	{Answer: stripetest.Drop},
	{Answer: stripetest.Drop, Applied: true},
	{Answer: stripetest.Error500},
	{Answer: stripetest.Error500, Applied: true},
	{Answer: stripetest.HTML502},
	{Answer: stripetest.HTML502, Applied: true},
	{Answer: stripetest.Throttled},
	{Answer: stripetest.Throttled, RetryAfter: 7},
	{Answer: stripetest.Truncated},
	{Answer: stripetest.Truncated, Applied: true},
	{Answer: stripetest.Redirect},
	{Answer: stripetest.Redirect, Applied: true},
	{Answer: stripetest.Garbled, Applied: true},
	{Answer: stripetest.Hang},
	{Answer: stripetest.Hang, Applied: true},
}

// inBubble runs test on a fake clock, where a hanging Stripe costs no time.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, test)
	})
}

func TestEveryFaultBillsOnce(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		for times := 1; times <= 3; times++ {
			inBubble(t, fmt.Sprintf("%v x%d", fault, times), func(t *testing.T) {
				b := newBench(t)
				b.Script(stripetest.Fault{}) // the first record passes, the fault meets the second
				b.Script(slices.Repeat([]stripetest.Fault{fault}, times)...)
				outcomes := b.deliverAll(t.Context(), t, []sink.Record{record(0, 1), record(1, 10), record(2, 100)})

				require.Equal(t, slices.Repeat([]sink.Outcome{sink.Delivered}, 3), outcomes)
				require.EqualValues(t, 111, b.Total(customer, event))
				require.Len(t, b.Events(), 3)
				require.Positive(t, b.Fired())
				require.Zero(t, b.Unbilled())
			})
		}
	}
}

func TestRandomFaultsBillOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T) {
			b, random := newBench(t), rand.New(rand.NewPCG(seed, 0))
			var records []sink.Record
			var want int64
			for n := range 20 {
				q := random.Int64N(1_000_000) + 1
				records, want = append(records, record(n, q)), want+q
			}
			for range 40 {
				var fault stripetest.Fault
				if random.IntN(2) == 0 {
					fault = everyFault[random.IntN(len(everyFault))]
				}
				b.Script(fault)
			}
			outcomes := b.deliverAll(t.Context(), t, records)

			require.Equal(t, slices.Repeat([]sink.Outcome{sink.Delivered}, len(records)), outcomes)
			require.Equal(t, want, b.Total(customer, event))
			require.Len(t, b.Events(), len(records))
			require.Positive(t, b.Fired())
		})
	}
}

func TestEndedContextSendsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.sink.Deliver(ctx, []sink.Record{record(0, 1), record(1, 1)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, b.Requests())
}

// The record under way when the context ends is in doubt, the ones behind it are
// surely not recorded.
func TestContextEndsBetweenRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.Script(stripetest.Fault{}, stripetest.Fault{Answer: stripetest.Hang, Applied: true})
		done := make(chan error)
		go func() { done <- b.sink.Deliver(ctx, []sink.Record{record(0, 1), record(1, 10), record(2, 100)}) }()
		synctest.Wait() // until Stripe hangs
		cancel()
		require.Equal(t, []sink.Outcome{sink.Delivered, sink.InDoubt, sink.Pending}, judge(<-done, 3))
		require.EqualValues(t, 11, b.Total(customer, event))
		require.Equal(t, 2, b.Requests())
	})
}

// Trouble that is not the record's own leaves the rest of the batch unsent, so
// that one outage puts one record in doubt and not twenty.
func TestOutageStopsTheBatch(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		if fault.Answer == stripetest.Garbled {
			continue // a 200: no trouble
		}
		inBubble(t, fault.String(), func(t *testing.T) {
			b := newBench(t)
			b.Script(fault)
			err := b.sink.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 1), record(2, 1)})
			require.Error(t, err)
			require.Equal(t, 1, b.Requests())
			require.Equal(t, []sink.Outcome{sink.Pending, sink.Pending}, judge(err, 3)[1:])
			require.EqualValues(t, fault.RetryAfter, sink.RetryDelay(err).Seconds())
		})
	}
}

// What was delivered before the trouble stays delivered, and what comes behind it
// waits as long.
func TestOutageWithinTheBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Script(stripetest.Fault{}, stripetest.Fault{Answer: stripetest.Throttled, RetryAfter: 7})
	err := b.sink.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 1), record(2, 1)})
	require.Equal(t, []sink.Outcome{sink.Delivered, sink.Pending, sink.Pending}, judge(err, 3))
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok)
	for _, err := range batch.Errs[1:] {
		require.Equal(t, 7*time.Second, sink.RetryDelay(err))
	}
	require.ErrorContains(t, batch.Errs[2], "a record before it failed")
	require.Equal(t, 2, b.Requests())
}

// What is wrong with one record must not hold up the others.
func TestBadRecordStandsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	bad := record(1, 10)
	bad.Subject = "acme"
	unknown := record(2, 10)
	unknown.Feature = "export"
	late := record(3, 10)
	late.Start, late.End = start.AddDate(0, -2, 0), start.AddDate(0, -2, 0)
	err := b.sink.Deliver(t.Context(), []sink.Record{record(0, 1), bad, unknown, late, record(4, 100)})
	require.Equal(t, []sink.Outcome{sink.Delivered, sink.Rejected, sink.Pending, sink.Rejected, sink.Delivered}, judge(err, 5))
	require.EqualValues(t, 101, b.Total(customer, event))
	require.ErrorContains(t, err, `"acme"`)
	batch := err.(*sink.BatchError)
	require.ErrorContains(t, batch.Errs[2], `feature "export"`)
	require.ErrorContains(t, batch.Errs[3], "35 days")
}

// The limits must not promise more than Stripe keeps.
func TestLimitsHoldAtStripe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	limits := b.sink.Limits()
	r := record(0, 5)
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
	b.clock.Add(int64(limits.DedupeWindow) - 1)
	r.Attempt, r.Doubt = 2, true
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
	require.EqualValues(t, 5, b.Total(customer, event))

	old := record(1, 7)
	b.setClock(old.Start.Add(limits.MaxAge))
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{old}))
	require.EqualValues(t, 12, b.Total(customer, event))
	require.Equal(t, limits, newSink(nil).Limits())
}
