package memsink_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/inprocess/meter/sink/sinktest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func record(id string, kind sink.Kind, quantity int64, start time.Time) sink.Record {
	return sink.Record{
		ID: id, Feature: "seats", Subject: "cus_1", Kind: kind, Quantity: quantity,
		Start: start, End: start.Add(time.Minute), Attempt: 1,
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, harness())
}

func harness() sinktest.Harness {
	var s *memsink.Sink
	return sinktest.Harness{
		New: func(testing.TB) sink.Sink { s = memsink.New(); return s },
		Total: func(_ testing.TB, feature, subject string) int64 {
			return s.Total(feature, subject)
		},
		Series: func(_ testing.TB, feature, subject string, dimensions map[string]string) int64 {
			var total int64
			for _, r := range s.Records() {
				if r.Feature == feature && r.Subject == subject && maps.Equal(r.Dimensions, dimensions) {
					total += r.Quantity
				}
			}
			return total
		},
	}
}

func TestTotalByKind(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Minute)
	for kind, want := range map[sink.Kind]int64{sink.Sum: 12, sink.Max: 9, sink.Last: 3} {
		s := memsink.New()
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{
			record("b", kind, 3, later), record("a", kind, 9, noon),
		}))
		require.Equal(t, want, s.Total("seats", "cus_1"), kind)
		require.Zero(t, s.Total("seats", "cus_2"))
		require.Zero(t, s.Total("reports", "cus_1"))
	}
}

func TestTotalAddsSeries(t *testing.T) {
	t.Parallel()
	s := memsink.New()
	eu, us := record("a", sink.Max, 5, noon), record("b", sink.Max, 3, noon)
	eu.Dimensions, us.Dimensions = map[string]string{"region": "eu"}, map[string]string{"region": "us"}
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{eu, us}))
	require.EqualValues(t, 8, s.Total("seats", "cus_1"))
}

func TestRecordsIsACopyInOrder(t *testing.T) {
	t.Parallel()
	s := memsink.New()
	first := record("z", sink.Sum, 1, noon)
	first.Dimensions = map[string]string{"model": "large"}
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{first, record("a", sink.Sum, 2, noon)}))
	held := s.Records()
	require.Equal(t, []string{"z", "a"}, []string{held[0].ID, held[1].ID})
	held[0].Dimensions["model"] = "small"
	held[1].Quantity = 100
	require.Equal(t, "large", s.Records()[0].Dimensions["model"])
	require.EqualValues(t, 3, s.Total("seats", "cus_1"))
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := memsink.New()
	good := record("good", sink.Sum, 1, noon)
	err := s.Deliver(t.Context(), []sink.Record{good, record("", sink.Sum, 1, noon), record("odd", sink.Kind(7), 1, noon)})
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok)
	require.NoError(t, batch.Errs[0])
	require.ErrorIs(t, batch.Errs[1], sink.ErrRejected)
	require.ErrorIs(t, batch.Errs[2], sink.ErrRejected)

	good.Attempt = 2
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{good}))
	good.Quantity = 2
	require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{good}), sink.ErrRejected)
	require.Len(t, s.Records(), 1)
}

func TestEndedContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := memsink.New()
	err := s.Deliver(ctx, []sink.Record{record("a", sink.Sum, 1, noon)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, s.Records())
}
