package sink_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func TestSentinelsDiffer(t *testing.T) {
	t.Parallel()
	require.NotErrorIs(t, sink.ErrRejected, sink.ErrNotApplied)
	require.NotErrorIs(t, sink.ErrNotApplied, sink.ErrRejected)
}

func TestBatchError(t *testing.T) {
	t.Parallel()
	first, second := fmt.Errorf("no such customer: %w", sink.ErrRejected), errors.New("later")
	err := error(&sink.BatchError{Errs: []error{nil, first, nil, second}})
	require.EqualError(t, err, "sink: 2 of 4 records failed: no such customer: sink: rejected")
	require.ErrorIs(t, err, sink.ErrRejected)
	require.ErrorIs(t, err, second)
	require.NotErrorIs(t, err, sink.ErrNotApplied)

	batch, ok := errors.AsType[*sink.BatchError](fmt.Errorf("wrapped: %w", err))
	require.True(t, ok)
	require.Len(t, batch.Errs, 4)

	require.EqualError(t, &sink.BatchError{}, "sink: 0 of 0 records failed: <nil>")
}

// A nil pointer in an error is a slip of the sink: it may not panic the meter,
// nor pass for delivered.
func TestNilBatchError(t *testing.T) {
	t.Parallel()
	var none *sink.BatchError
	err := error(none)
	require.Error(t, err)
	require.NotPanics(t, func() {
		require.Contains(t, err.Error(), "nil *BatchError")
		require.NotErrorIs(t, err, sink.ErrNotApplied)
		require.NotErrorIs(t, err, sink.ErrRejected)
		_, found := errors.AsType[*time.ParseError](err)
		require.False(t, found)
		require.Zero(t, sink.RetryDelay(err))
		require.Equal(t, time.Second, sink.RetryDelay(sink.RetryAfter(err, time.Second)))
	})
}

func TestRetryAfterKeepsTheOutcome(t *testing.T) {
	t.Parallel()
	require.NoError(t, sink.RetryAfter(nil, time.Second))
	err := sink.RetryAfter(fmt.Errorf("throttled: %w", sink.ErrNotApplied), 1500*time.Millisecond)
	require.EqualError(t, err, "throttled: sink: not applied (retry after 1.5s)")
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.NotErrorIs(t, err, sink.ErrRejected)

	whole := sink.RetryAfter(&sink.BatchError{Errs: []error{nil, sink.ErrRejected}}, time.Second)
	batch, ok := errors.AsType[*sink.BatchError](whole)
	require.True(t, ok)
	require.Len(t, batch.Errs, 2)
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) error { return sink.RetryAfter(sink.ErrNotApplied, d) }
	for name, c := range map[string]struct {
		err  error
		want time.Duration
	}{
		"nil":        {nil, 0},
		"none":       {sink.ErrNotApplied, 0},
		"negative":   {after(-time.Second), 0},
		"plain":      {after(time.Second), time.Second},
		"wrapped":    {fmt.Errorf("call: %w", after(time.Second)), time.Second},
		"inner more": {sink.RetryAfter(after(time.Minute), time.Second), time.Minute},
		"outer more": {sink.RetryAfter(after(time.Second), time.Minute), time.Minute},
		"joined":     {errors.Join(after(time.Second), after(time.Hour), context.Canceled), time.Hour},
		"two verbs":  {fmt.Errorf("%w: %w", context.Canceled, after(time.Second)), time.Second},
		"batch":      {&sink.BatchError{Errs: []error{nil, after(time.Second), after(time.Minute)}}, time.Minute},
		"nested":     {sink.RetryAfter(&sink.BatchError{Errs: []error{after(time.Minute)}}, time.Second), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, sink.RetryDelay(c.err))
		})
	}
}
