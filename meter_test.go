package meter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

var limitNaN = rate.Limit(math.NaN())

func TestCountsReachTheSink(t *testing.T) {
	t.Parallel()
	m := open(t)
	report := m.Feature("report")
	seats := m.Feature("seats", Kind(sink.Max))
	plan := m.Feature("plan", Kind(sink.Last))

	require.NoError(t, report.Add(t.Context(), "cus_1", 3))
	require.NoError(t, report.Add(t.Context(), "cus_1", 4))
	require.NoError(t, report.Add(t.Context(), "cus_2", 1))
	require.NoError(t, report.Counter("cus_1").Add(t.Context(), 10))
	require.NoError(t, seats.Set(t.Context(), "cus_1", 12))
	require.NoError(t, seats.Set(t.Context(), "cus_1", 7))
	require.NoError(t, plan.Set(t.Context(), "cus_1", 12))
	require.NoError(t, plan.Set(t.Context(), "cus_1", 7))

	require.EqualValues(t, 17, m.billed(t, "report", "cus_1"))
	require.EqualValues(t, 1, m.billed(t, "report", "cus_2"))
	require.EqualValues(t, 12, m.billed(t, "seats", "cus_1"))
	require.EqualValues(t, 7, m.billed(t, "plan", "cus_1"))
	require.EqualValues(t, 17, report.Total("cus_1").Quantity)
	require.EqualValues(t, -1, report.Total("cus_1").Limit)
	require.NoError(t, m.Health())
	require.NoError(t, m.Prepare(t.Context()))
}

func TestAddRefusesBadQuantities(t *testing.T) {
	t.Parallel()
	m := open(t)
	sum, peak := m.Feature("sum"), m.Feature("peak", Kind(sink.Max))
	ctx := t.Context()
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"negative":         {sum.Add(ctx, "s", -1), ErrQuantity},
		"negative counter": {sum.Counter("s").Add(ctx, -1), ErrQuantity},
		"too much":         {sum.Add(ctx, "s", math.MaxInt64), ErrQuantity},
		"zero":             {sum.Add(ctx, "s", 0), nil},
		"Set on a sum":     {sum.Set(ctx, "s", 1), ErrKind},
		"Add on a max":     {peak.Add(ctx, "s", 1), ErrKind},
		"Counter on a max": {peak.Counter("s").Add(ctx, 1), ErrKind},
		"negative level":   {peak.Set(ctx, "s", -1), ErrQuantity},
	} {
		require.ErrorIs(t, test.err, test.want, name)
	}
	require.NoError(t, m.Flush(ctx))
	require.Empty(t, m.sink.Records())
	require.NoError(t, peak.Set(ctx, "s", 0), "seats may fall to none")
	require.NoError(t, m.Flush(ctx))
	require.Len(t, m.sink.Records(), 1)
}

func TestBadSubjects(t *testing.T) {
	t.Parallel()
	m := open(t)
	f, peak := m.Feature("f"), m.Feature("peak", Kind(sink.Max))
	for name, subject := range map[string]string{
		"empty":     "",
		"oversized": strings.Repeat("x", 257),
		"control":   "cus\n1",
		"null":      "cus\x001",
		"delete":    "cus\x7f",
		"no UTF-8":  "cus\xff",
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, f.Add(t.Context(), subject, 1), ErrName)
			require.ErrorIs(t, f.Counter(subject).Add(t.Context(), 1), ErrName)
			require.ErrorIs(t, peak.Set(t.Context(), subject, 1), ErrName)
			ctx := WithDimension(t.Context(), "region", "eu")
			require.ErrorIs(t, f.Add(ctx, subject, 1), ErrName)
			_, _, err := f.Begin(as(subject))
			require.Equal(t, 401, asRefused(t, err).Status())
		})
	}
	for _, subject := range []string{"x", strings.Repeat("x", 256), "Ünïcödé 客户", "a b"} {
		require.NoError(t, f.Add(t.Context(), subject, 1))
	}
}

func TestFeaturePanicsAtWiring(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) {
		c.Sinks = append(c.Sinks, Route{Name: "sums", Sink: onlySums{memsink.New()}})
	})
	broken := open(t, func(c *Config) {
		c.Sinks = append(c.Sinks, Route{Name: "kinds", Sink: kindless{memsink.New()}})
	})
	for name, test := range map[string]struct {
		declare func()
		says    []string
	}{
		"empty":          {func() { m.Feature("") }, []string{"empty"}},
		"oversized":      {func() { m.Feature(strings.Repeat("x", 101)) }, []string{"101 bytes", "at most 100"}},
		"not printable":  {func() { m.Feature("a\tb") }, []string{"print"}},
		"not UTF-8":      {func() { m.Feature("a\xff") }, []string{"UTF-8"}},
		"two kinds":      {func() { m.Feature("twice"); m.Feature("twice", Kind(sink.Max)) }, []string{"twice", "sum", "max", "one kind"}},
		"two units":      {func() { m.Feature("units", Unit("token")); m.Feature("units", Unit("call")) }, []string{"units", "token", "call"}},
		"unknown kind":   {func() { m.Feature("kind", Kind(9)) }, []string{"no such kind"}},
		"sink can't":     {func() { m.Feature("peak", Kind(sink.Max)) }, []string{"max", `"sums"`, "sum"}},
		"bad quantity":   {func() { m.Feature("q", Quantity(-1)) }, []string{"q", "Quantity"}},
		"bad hold":       {func() { m.Feature("h", Hold(-1)) }, []string{"Hold"}},
		"bad rate":       {func() { m.Feature("r", Rate(-1, 1)) }, []string{"Rate"}},
		"bad burst":      {func() { m.Feature("r", Rate(1, -1)) }, []string{"Rate", "burst is -1"}},
		"no burst":       {func() { m.Feature("r", Rate(1, 0)) }, []string{"Rate", "burst is 0"}},
		"rate not a one": {func() { m.Feature("r", Rate(0, 1), Rate(limitNaN, 1)) }, []string{"Rate", "NaN"}},
		"nil option":     {func() { m.Feature("o", Unit("x"), nil) }, []string{`"o"`, "nil option"}},
		"kinds panics":   {func() { broken.Feature("k") }, []string{`"k"`, `route "kinds"`, "Kinds panicked: no kinds"}},
	} {
		t.Run(name, func(t *testing.T) {
			said := panicOf(test.declare)
			for _, word := range test.says {
				require.Contains(t, said, word)
			}
		})
	}
	require.NotPanics(t, func() { m.Feature(strings.Repeat("x", 100)) })
}

type onlySums struct{ *memsink.Sink }

func (onlySums) Kinds() []sink.Kind { return []sink.Kind{sink.Sum} }

type kindless struct{ *memsink.Sink }

func (kindless) Kinds() []sink.Kind { panic("no kinds") }

func panicOf(f func()) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	f()
	return "it did not panic"
}

func TestFeatureTwice(t *testing.T) {
	t.Parallel()
	m := open(t)
	first := m.Feature("f", Quantity(5))
	require.Same(t, first, m.Feature("f"))
	again := m.Feature("f", Unit(""), CountWhen(nil))
	require.NoError(t, again.Add(t.Context(), "s", 1))
	require.NoError(t, first.Add(t.Context(), "s", 1))
	require.EqualValues(t, 2, m.billed(t, "f", "s"))

	require.NoError(t, Do(as("s"), again, func(context.Context) error { return nil }))
	require.EqualValues(t, 7, m.billed(t, "f", "s"), "defaults of the first declaration hold on")
	other := m.Feature("f", Quantity(1))
	require.NoError(t, Do(as("s"), other, func(context.Context) error { return nil }))
	require.NoError(t, Do(as("s"), first, func(context.Context) error { return nil }))
	require.EqualValues(t, 13, m.billed(t, "f", "s"), "options of a later one are its own")
}

func TestDimensions(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	eu := WithDimension(t.Context(), "region", "eu")
	gold := WithDimension(eu, "plan", "gold")
	us := WithDimension(gold, "region", "us")
	require.NoError(t, f.Add(eu, "s", 1))
	require.NoError(t, f.Add(gold, "s", 2))
	require.NoError(t, f.Add(us, "s", 4))
	require.NoError(t, f.Add(t.Context(), "s", 8))
	require.NoError(t, f.Counter("s").Add(eu, 16), "a counter has none")
	require.NoError(t, Do(WithCaller(us, Caller{Subject: "s"}), f, func(context.Context) error { return nil }))
	require.NoError(t, m.Flush(t.Context()))
	got := map[string]int64{}
	for _, r := range m.sink.Records() {
		got[fmt.Sprint(r.Dimensions)] += r.Quantity
	}
	require.Equal(t, map[string]int64{
		"map[region:eu]":           1,
		"map[plan:gold region:eu]": 2,
		"map[plan:gold region:us]": 5,
		"map[]":                    24,
	}, got)
}

func TestBadDimensions(t *testing.T) {
	t.Parallel()
	m := open(t)
	f, peak := m.Feature("f"), m.Feature("peak", Kind(sink.Max))
	many := t.Context()
	for i := range 17 {
		many = WithDimension(many, fmt.Sprint("d", i), "v")
	}
	for name, test := range map[string]struct {
		ctx  context.Context
		says string
	}{
		"empty name":      {WithDimension(t.Context(), "", "v"), "empty"},
		"oversized name":  {WithDimension(t.Context(), strings.Repeat("n", 65), "v"), "65 bytes"},
		"name with tab":   {WithDimension(t.Context(), "a\tb", "v"), "print"},
		"oversized value": {WithDimension(t.Context(), "n", strings.Repeat("v", 257)), `"n"`},
		"control value":   {WithDimension(t.Context(), "n", "a\nb"), "control"},
		"no UTF-8":        {WithDimension(t.Context(), "n", "\xff"), "UTF-8"},
		"17 of them":      {many, "17"},
		"inherited":       {WithDimension(WithDimension(t.Context(), "", "v"), "fine", "v"), "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{f.Add(test.ctx, "s", 1), peak.Set(test.ctx, "s", 1)} {
				require.ErrorIs(t, err, ErrName)
				require.Contains(t, err.Error(), test.says)
			}
			_, _, err := f.Begin(WithCaller(test.ctx, Caller{Subject: "s"}))
			require.ErrorIs(t, err, ErrName)
		})
	}
	sixteen := t.Context()
	for i := range 16 {
		sixteen = WithDimension(sixteen, fmt.Sprint("d", i), strings.Repeat("v", 256))
	}
	require.NoError(t, f.Add(WithDimension(sixteen, "d0", ""), "s", 1))
}

func TestConcurrentCounting(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f")
	counter := f.Counter("s")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 500 {
				_ = f.Add(t.Context(), "s", 1)
				_ = counter.Add(t.Context(), 1)
				_ = Do(as("s"), f, func(context.Context) error { return nil })
				if i%100 == 0 {
					_ = m.Flush(t.Context())
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 8*500*3, m.billed(t, "f", "s"))
}

func TestQuarantineAndSettle(t *testing.T) {
	t.Parallel()
	refused := errors.New("no such customer")
	m := open(t, func(c *Config) {
		c.Sinks = []Route{{Name: "biller", Sink: sink.Func(func(_ context.Context, rs []sink.Record) error {
			if rs[0].Feature == "doubt" {
				return errors.New("connection lost")
			}
			return fmt.Errorf("%w: %w", sink.ErrRejected, refused)
		})}}
	})
	for _, name := range []string{"bad", "doubt"} {
		require.NoError(t, m.Feature(name).Add(t.Context(), "s", 5))
		_ = m.Flush(t.Context())
	}
	found := map[string]sink.Outcome{}
	ids := map[string]string{}
	for r, outcome := range m.Quarantine() {
		require.Equal(t, "biller", r.Route)
		found[r.Feature], ids[r.Feature] = outcome, r.ID
	}
	require.Equal(t, map[string]sink.Outcome{"bad": sink.Rejected, "doubt": sink.InDoubt}, found)

	require.Error(t, m.Settle(t.Context(), "biller", "no-such-record", sink.Voided, ""))
	require.ErrorContains(t, m.Settle(t.Context(), "biller", ids["bad"], sink.Attempted, ""), "attempted")
	require.NoError(t, m.Settle(t.Context(), "biller", ids["bad"], sink.Voided, "ticket 4711"))
	require.NoError(t, m.Settle(t.Context(), "biller", ids["doubt"], sink.Delivered, "seen on the invoice"))
	for range m.Quarantine() {
		t.Fatal("nothing should be left")
	}
	for _, l := range m.Books() {
		switch l.Feature {
		case "bad":
			require.EqualValues(t, 5, l.Voided)
		case "doubt":
			require.EqualValues(t, 5, l.Delivered)
		}
	}
}

func TestRoutesMatch(t *testing.T) {
	t.Parallel()
	old, fresh := memsink.New(), memsink.New()
	m := open(t, func(c *Config) {
		c.Sinks = []Route{
			{Name: "old", Sink: old, Match: func(r sink.Record) bool { return r.Subject == "a" }},
			{Name: "fresh", Sink: fresh, Match: func(r sink.Record) bool { return r.Subject != "a" }},
		}
	})
	f := m.Feature("f")
	require.NoError(t, f.Add(t.Context(), "a", 1))
	require.NoError(t, f.Add(t.Context(), "b", 2))
	require.NoError(t, m.Flush(t.Context()))
	require.EqualValues(t, 1, old.Total("f", "a"))
	require.EqualValues(t, 0, old.Total("f", "b"))
	require.EqualValues(t, 2, fresh.Total("f", "b"))
	require.EqualValues(t, 0, fresh.Total("f", "a"))
}

func TestCountsSurviveReopening(t *testing.T) {
	t.Parallel()
	dir, biller := t.TempDir(), memsink.New()
	down := sinkFunc{func(context.Context, []sink.Record) error { return sink.ErrNotApplied }, sink.Limits{}}
	m := open(t, func(c *Config) { c.Dir, c.Sinks = dir, []Route{{Name: "r", Sink: down}} })
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 3))

	_, err := Open(Config{Dir: dir, LockWait: NoWait})
	require.ErrorIs(t, err, ErrLocked)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	left, ok := errors.AsType[*ShutdownError](m.Shutdown(ended))
	require.True(t, ok)
	require.EqualValues(t, 1, left.Pending)
	require.True(t, left.Durable)

	again := open(t, func(c *Config) { c.Dir, c.Sinks = dir, []Route{{Name: "r", Sink: biller}} })
	require.NoError(t, again.Flush(t.Context()))
	require.EqualValues(t, 3, biller.Total("f", "s"))
	require.EqualValues(t, 3, again.Feature("f").Total("s").Quantity)
	require.NoError(t, again.Shutdown(t.Context()))
}
