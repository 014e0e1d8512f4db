package sinktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func TestGoodSink(t *testing.T) {
	t.Parallel()
	require.NoError(t, check(t, newSetup().harness))
}

// Sinks that promise less must pass, too: a rule is about what is promised.
func TestModestSinks(t *testing.T) {
	t.Parallel()
	refuseAllBut := func(f *front, kind sink.Kind) {
		f.kinds = []sink.Kind{kind}
		f.deliver = f.refuse(func(r sink.Record) bool { return r.Kind != kind })
	}
	for name, front := range map[string]func(f *front){
		"zero limits":      func(f *front) { f.limits = sink.Limits{} },
		"one at a time":    func(f *front) { f.limits.MaxBatch = 1 },
		"four at a time":   func(f *front) { f.limits.Concurrency = 4 },
		"small quantities": func(f *front) { f.limits.MaxQuantity = 1000 },
		"sum only":         func(f *front) { refuseAllBut(f, sink.Sum) },
		"max only":         func(f *front) { refuseAllBut(f, sink.Max) },
		"known subjects only": func(f *front) {
			f.deliver = f.refuse(func(r sink.Record) bool {
				return r.Kind > sink.Last || len(r.Subject) < 9 || r.Subject[:9] != "sinktest-"
			})
		},
		"no dedupe": func(f *front) {
			f.limits.DedupeWindow = 0
			f.deliver = f.each(func(r *sink.Record) { r.ID = fmt.Sprint(r.ID, "-", r.Attempt) })
		},
		"doubt about ended contexts": func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return f.biller.Deliver(ctx, records)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup()
			s.front = front
			require.NoError(t, check(t, s.harness))
		})
	}
}

// A register keeps one quantity for each time, whatever the ID.
func TestRegisters(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		minWindow, resolution time.Duration
		says                  string // "": good
	}{
		{5 * time.Second, 5 * time.Second, ""},
		{90 * time.Second, time.Second, ""},
		{4500 * time.Millisecond, 5 * time.Second, ""}, // windows begin at whole seconds
		{5 * time.Second, 10 * time.Second, "sinktest: windows: "},
		{0, time.Second, "windows: after a record like an earlier one, under another ID"},
	} {
		s := newSetup()
		s.front = func(f *front) {
			f.limits.MinWindow = test.minWindow
			f.deliver = f.each(func(r *sink.Record) {
				r.ID = fmt.Sprint(r.Feature, r.Subject, r.Kind, r.Start.UnixNano()/int64(test.resolution))
			})
		}
		s.harness.Skip = map[string]string{"dimensions": "a register has none"}
		s.harness.Series, s.harness.LostReply, s.harness.Stalled = nil, nil, nil
		err := check(t, s.harness)
		if test.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.says)
		}
	}
}

func TestRunSkips(t *testing.T) {
	t.Parallel()
	s := newSetup()
	s.front = func(f *front) { f.deliver = f.each(func(r *sink.Record) { r.Quantity = int64(int32(r.Quantity)) }) }
	s.harness.Skip = map[string]string{"big quantity": "the biller counts in 32 bits"}
	s.harness.Restart, s.harness.Unreachable, s.harness.LostReply, s.harness.Stalled = nil, nil, nil, nil
	Run(t, s.harness)
}

func TestFeatureAndSubject(t *testing.T) {
	t.Parallel()
	s := newSetup()
	customers := 0
	s.harness.Subject = func(_ testing.TB, n int) string {
		require.Equal(t, customers, n)
		customers++
		return fmt.Sprintf("cus_%d", n)
	}
	s.harness.Feature = func(kind sink.Kind) string { return "seats-" + kind.String() }
	require.NoError(t, Check(t, s.harness))
	require.Positive(t, customers)
	require.EqualValues(t, 3, s.biller.Total("seats-sum", "cus_0"))
}

func TestHarnessFaults(t *testing.T) {
	t.Parallel()
	err := Check(t, Harness{Skip: map[string]string{"rainy days": "dry here", "batch": ""}})
	require.ErrorContains(t, err, "Harness.New is nil")
	require.ErrorContains(t, err, "Harness.Total is nil")
	require.ErrorContains(t, err, `no rule "rainy days"`)
	require.ErrorContains(t, err, `Harness.Skip["batch"]: give the reason`)

	h := newSetup().harness
	h.New = func(testing.TB) sink.Sink { return nil }
	require.ErrorContains(t, Check(t, h), "nil sink")
}

// The sink's own errors stay visible through what the kit returns.
func TestCheckWraps(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	s := newSetup()
	s.front = func(f *front) { f.validate = mine }
	require.ErrorIs(t, check(t, s.harness), mine)
}

func TestRulesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rules {
		require.False(t, seen[r.name], r.name)
		require.NotEmpty(t, r.why, r.name)
		seen[r.name] = true
	}
}
