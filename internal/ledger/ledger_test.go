package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// modes are the ways to keep a ledger; every behavior holds in all of them.
var modes = []string{"memory", "mapped", "heap"}

// open opens a ledger that only rotates when told, with one route that dedupes
// for ever.
func open(t testing.TB, mode, dir string, change ...func(*Config)) *Ledger {
	t.Helper()
	cfg := testConfig(dir, change...)
	if mode == "memory" {
		cfg.Dir = ""
	}
	l, err := openMode(cfg, mode)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func testConfig(dir string, change ...func(*Config)) Config {
	cfg := Config{
		Dir:     dir,
		Routes:  []Route{{Name: "main", DedupeWindow: sink.Forever, Timeout: time.Second}},
		Window:  OnFlush,
		Sync:    time.Hour,
		MaxDisk: 1 << 30,
		Logger:  slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

// openMode opens a ledger whose counters lie on the heap if mode is "heap", as
// they do where mapping files is not safe.
func openMode(cfg Config, mode string) (*Ledger, error) {
	cfg.neverMap = mode == "heap"
	return Open(cfg)
}

// eachMode runs a test in every mode, in fake time: windows take whole seconds.
func eachMode(t *testing.T, test func(t *testing.T, mode string)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, mode) })
		})
	}
}

func feature(t testing.TB, l *Ledger, name string, kind sink.Kind) *Feature {
	t.Helper()
	f, err := l.Feature(name, kind)
	require.NoError(t, err)
	return f
}

// rotate seals, and waits out the second in which that can be done only once.
func rotate(t testing.TB, l *Ledger) {
	t.Helper()
	require.NoError(t, l.Rotate(context.Background()))
}

// deliver takes everything there is on a route, answers each record with as, and
// returns the records.
func deliver(t testing.TB, l *Ledger, route int, as sink.Outcome) (records []sink.Record) {
	t.Helper()
	for {
		b, err := l.Take(route, 100, nil)
		require.NoError(t, err)
		if b == nil {
			return records
		}
		results := make([]Result, len(b.Records))
		for i := range results {
			results[i] = Result{Outcome: as, NotBefore: time.Now().Add(time.Hour), Reason: "as told"}
		}
		records = append(records, b.Records...)
		require.NoError(t, b.Resolve(results))
	}
}

func sum(records []sink.Record, feature, subject string) (n int64) {
	for _, r := range records {
		if r.Feature == feature && r.Subject == subject {
			n += r.Quantity
		}
	}
	return n
}

// Set notes subject's level (of a Max or Last), as tests like to.
func (f *Feature) Set(subject string, level int64) error {
	s, err := f.Series(subject, nil)
	if err != nil {
		return err
	}
	return s.Set(level)
}

func TestCountSealDeliver(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.Add("acme", 3))
		require.NoError(t, f.Add("acme", 4))
		require.NoError(t, f.Add("bolt", 1))
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 8, Pending: 8}}, l.Books())
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 2)
		require.EqualValues(t, 7, sum(records, "report", "acme"))
		require.EqualValues(t, 1, sum(records, "report", "bolt"))
		for _, r := range records {
			require.True(t, r.End.After(r.Start))
			require.Equal(t, 1, r.Attempt)
			require.LessOrEqual(t, len(r.ID), 64)
		}
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 8, Delivered: 8}}, l.Books())
		got, _, _ := f.Total("acme")
		require.EqualValues(t, 7, got)
		require.NoError(t, l.Health())
	})
}

func TestKinds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		peak, seats, calls := feature(t, l, "peak", sink.Max), feature(t, l, "seats", sink.Last), feature(t, l, "calls", sink.Sum)
		for _, level := range []int64{3, 9, 4} {
			require.NoError(t, peak.Set("a", level))
			require.NoError(t, seats.Set("a", level))
		}
		require.NoError(t, seats.Set("b", 0))
		require.NoError(t, calls.Add("b", 0))
		require.ErrorIs(t, peak.Add("a", 1), ErrKind)
		require.ErrorIs(t, calls.Set("a", 1), ErrKind)
		require.ErrorIs(t, calls.Add("a", -1), ErrQuantity)
		require.ErrorIs(t, calls.Add("a", MaxQuantity+1), ErrQuantity)
		require.ErrorIs(t, peak.Set("a", -1), ErrQuantity)
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 3, "a Sum of nothing is no record, a level of zero is one")
		require.EqualValues(t, 9, sum(records, "peak", "a"))
		require.EqualValues(t, 4, sum(records, "seats", "a"))
		require.EqualValues(t, 0, sum(records, "seats", "b"))
	})
}

func TestDimensionsArePartOfTheSeries(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "tokens", sink.Sum)
		for model, n := range map[string]int64{"small": 1, "large": 10} {
			s, err := f.Series("acme", map[string]string{"model": model, "region": "eu"})
			require.NoError(t, err)
			require.NoError(t, s.Add(n))
		}
		require.NoError(t, f.Add("acme", 100))
		got, _, _ := f.Total("acme")
		require.EqualValues(t, 111, got)
		rotate(t, l)
		got, _, _ = f.Total("acme")
		require.EqualValues(t, 111, got)
		byModel := map[string]int64{}
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			byModel[r.Dimensions["model"]] += r.Quantity
		}
		require.Equal(t, map[string]int64{"small": 1, "large": 10, "": 100}, byModel)
	})
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	l := open(t, "memory", "")
	f := feature(t, l, "ok", sink.Sum)
	long := string(make([]byte, 300))
	for _, bad := range []string{"", long, "a\nb", "\xff"} {
		_, err := l.Feature(bad, sink.Sum)
		require.ErrorIs(t, err, ErrName)
		require.ErrorIs(t, f.Add(bad, 1), ErrName)
		_, err = f.Series("s", map[string]string{bad: "x"})
		require.ErrorIs(t, err, ErrName)
	}
	_, err := l.Feature("ok", sink.Max)
	require.ErrorIs(t, err, ErrKind)
	again, err := l.Feature("ok", sink.Sum)
	require.NoError(t, err)
	require.Same(t, f, again)
	require.Empty(t, l.Books())
}

func TestConcurrentCountsSurviveRotation(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		const writers, each, subjects = 8, 20_000, 5
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range writers {
			wg.Go(func() {
				hot, err := f.Series("hot", nil)
				require.NoError(t, err)
				for i := range each {
					require.NoError(t, hot.Add(1))
					require.NoError(t, f.Add(fmt.Sprint("s", (w+i)%subjects), 1))
				}
			})
		}
		var records []sink.Record
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					require.NoError(t, l.Rotate(context.Background()))
				}
			}
		}()
		wg.Wait()
		close(stop)
		<-done
		rotate(t, l)
		records = deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, writers*each, sum(records, "calls", "hot"))
		var all int64
		for _, r := range records {
			all += r.Quantity
		}
		require.EqualValues(t, 2*writers*each, all)
		total, _, _ := f.Total("hot")
		require.EqualValues(t, writers*each, total)
		seen := map[string]bool{}
		for _, r := range records {
			k := r.Subject + r.Start.String()
			require.False(t, seen[k], "one record per series and window")
			seen[k] = true
		}
	})
}

func TestReopenContinues(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		rotate(t, l)
		require.Len(t, deliver(t, l, 0, sink.Delivered), 1)
		require.NoError(t, f.Add("acme", 6))
		require.NoError(t, l.Close(context.Background()))
		require.ErrorIs(t, f.Add("acme", 1), ErrClosed)
		require.ErrorIs(t, f.Add("fresh", 1), ErrClosed)

		l = open(t, mode, dir)
		total, _, _ := feature(t, l, "report", sink.Sum).Total("acme")
		require.EqualValues(t, 11, total)
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 11, Pending: 6, Delivered: 5}}, l.Books())
		records := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 6, sum(records, "report", "acme"))
		synctest.Wait()
		require.NoError(t, l.foldSettled())
		require.Empty(t, l.sealedNow())
		require.NoError(t, l.Close(context.Background()))

		l = open(t, mode, dir)
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 11, Delivered: 11}}, l.Books())
		total, _, _ = feature(t, l, "report", sink.Sum).Total("acme")
		require.EqualValues(t, 11, total, "the month's total outlives its segments")
	})
}

func TestDoubtIsSticky(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), func(c *Config) { c.Routes[0].DedupeWindow = 24 * time.Hour })
		f := feature(t, l, "report", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		rotate(t, l)
		first := attempt(t, l, sink.InDoubt)
		again := attempt(t, l, sink.Pending)
		require.Equal(t, first.ID, again.ID)
		require.Equal(t, 2, again.Attempt)
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 5, InDoubt: 5}}, l.Books(), "that the second attempt was not applied says nothing of the first")
		attempt(t, l, sink.Rejected)
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 5, InDoubt: 5}}, l.Books())
		b, err := l.Take(0, 1, nil)
		require.NoError(t, err)
		require.Nil(t, b, "quarantined")
		var held []string
		for r, o := range l.Quarantine() {
			require.Equal(t, sink.InDoubt, o)
			require.Equal(t, "main", r.Route)
			require.Equal(t, "as told", r.Reason)
			require.False(t, r.FirstAttempt.IsZero())
			held = append(held, r.ID)
		}
		require.Equal(t, []string{first.ID}, held)
		require.Error(t, l.Settle(context.Background(), "main", "nonsense", sink.Voided, ""))
		require.Error(t, l.Settle(context.Background(), "other", first.ID, sink.Voided, ""))
		require.Error(t, l.Settle(context.Background(), "main", first.ID, sink.InDoubt, ""))
		require.NoError(t, l.Settle(context.Background(), "main", first.ID, sink.Voided, "ticket 12"))
		require.Error(t, l.Settle(context.Background(), "main", first.ID, sink.Delivered, ""), "settled once")
		require.Equal(t, []Line{{Feature: "report", Route: "main", Accepted: 5, Voided: 5}}, l.Books())
	})
}

// attempt makes one attempt of the one record there is.
func attempt(t testing.TB, l *Ledger, as sink.Outcome) sink.Record {
	t.Helper()
	b, err := l.Take(0, 1, nil)
	require.NoError(t, err)
	require.NotNil(t, b)
	require.Len(t, b.Records, 1)
	require.NoError(t, b.Resolve([]Result{{Outcome: as, Reason: "as told"}}))
	return b.Records[0]
}

func TestErrorsAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, "mapped", dir)
	_, err := Open(testConfig(dir))
	require.True(t, errors.Is(err, ErrLocked), err)
	require.ErrorContains(t, err, dir)
}
