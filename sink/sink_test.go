package sink_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func TestFunc(t *testing.T) {
	t.Parallel()
	type key struct{}
	boom := errors.New("boom")
	var got []sink.Record
	var s sink.Sink = sink.Func(func(ctx context.Context, records []sink.Record) error {
		require.Equal(t, 7, ctx.Value(key{}))
		got = records
		return boom
	})
	records := []sink.Record{{ID: "a"}, {ID: "b"}}
	require.Equal(t, boom, s.Deliver(context.WithValue(t.Context(), key{}, 7), records))
	require.Equal(t, records, got)
	_, limited := s.(sink.Limiter)
	require.False(t, limited) // zero limits, as documented
}

// The words are in files, logs and metrics: they must not change.
func TestStrings(t *testing.T) {
	t.Parallel()
	for kind, want := range map[sink.Kind]string{
		sink.Sum: "sum", sink.Max: "max", sink.Last: "last", 3: "unknown", 99: "unknown",
	} {
		require.Equal(t, want, kind.String())
	}
	for outcome, want := range map[sink.Outcome]string{
		sink.Pending: "pending", sink.Attempted: "attempted", sink.Delivered: "delivered", sink.InDoubt: "in doubt",
		sink.Rejected: "rejected", sink.Voided: "voided", sink.Superseded: "superseded", 7: "unknown",
	} {
		require.Equal(t, want, outcome.String())
	}
}

// The numbers are in ledgers: they must not change either.
func TestNumbers(t *testing.T) {
	t.Parallel()
	require.Equal(t, []sink.Kind{0, 1, 2}, []sink.Kind{sink.Sum, sink.Max, sink.Last})
	require.Equal(t, []sink.Outcome{0, 1, 2, 3, 4, 5, 6}, []sink.Outcome{
		sink.Pending, sink.Attempted, sink.Delivered, sink.InDoubt, sink.Rejected, sink.Voided, sink.Superseded,
	})
}
