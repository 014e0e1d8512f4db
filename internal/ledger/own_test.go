package ledger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// admitted is how many of most calls of 1 are let through.
func admitted(t testing.TB, f *Feature, subject string, q func() Quota, most int) (n int) {
	t.Helper()
	for n < most && call(t, f, subject, q(), 1, 1) {
		n++
	}
	return n
}

func fixed(q Quota) func() Quota { return func() Quota { return q } }

// again is the ledger after a restart.
func again(t testing.TB, l *Ledger, mode, dir string, change ...func(*Config)) (*Ledger, *Feature) {
	t.Helper()
	require.NoError(t, l.Close(context.Background()))
	l = open(t, mode, dir, change...)
	synctest.Wait()
	return l, feature(t, l, "calls", sink.Sum)
}

// eachDirMode is eachMode with a directory.
func eachDirMode(t *testing.T, test func(t *testing.T, mode, dir string)) {
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { test(t, mode, dir) })
		})
	}
}

func date(month, day int) int64 {
	return time.Date(2000, time.Month(month), day, 0, 0, 0, 0, time.UTC).Unix()
}

// foldAway delivers what is sealed, and has it folded.
func foldAway(t testing.TB, l *Ledger) {
	t.Helper()
	synctest.Wait() // housekeeping is over, and does not meet this
	deliver(t, l, 0, sink.Delivered)
	l.tidy()
}

func sleepUntil(t testing.TB, l *Ledger, second int64) {
	time.Sleep(time.Until(time.Unix(second, 0)) + time.Second)
	rotate(t, l)
	synctest.Wait()
}

// What was folded away before a quota's bounds were known counts in its period, as long
// as it was in the running month, and does so after every restart.
func TestPeriodLearnedAfterItsCountsWereFolded(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "calls", sink.Sum)
		sleepUntil(t, l, date(1, 10))
		require.Equal(t, 6, admitted(t, f, "s", fixed(Quota{Limit: 10}), 6))
		rotate(t, l)
		foldAway(t, l)
		q := fixed(Quota{Limit: 10, Start: date(1, 1), End: date(2, 15)})
		require.Equal(t, 1, admitted(t, f, "s", q, 1))
		l, f = again(t, l, mode, dir)
		require.Equal(t, 1, admitted(t, f, "s", q, 1))
		rotate(t, l)
		foldAway(t, l)
		l, f = again(t, l, mode, dir)
		require.EqualValues(t, 8, heldTo(t, f, "s", q()).Counted)
		sleepUntil(t, l, date(2, 10))
		_, f = again(t, l, mode, dir)
		require.Equal(t, 2, admitted(t, f, "s", q, 10), "the next month, too")
	})
}

// What was counted before bounds were known that are younger than the month is not
// counted in the period, and is not after a restart.
func TestPeriodLearnedLate(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "calls", sink.Sum)
		sleepUntil(t, l, date(1, 20))
		for range 3 {
			require.NoError(t, f.Add("s", 3))
			rotate(t, l)
		}
		q := fixed(Quota{Limit: 10, Start: date(1, 15), End: date(2, 15)})
		require.Equal(t, 4, admitted(t, f, "s", q, 4))
		before := heldTo(t, f, "s", q())
		l, f = again(t, l, mode, dir)
		require.Equal(t, before, heldTo(t, f, "s", q()))
		require.Equal(t, 6, admitted(t, f, "s", q, 100))
		require.NoError(t, l.Health())
	})
}

// A period that was only looked at is not forgotten while it runs, nor the one behind it:
// counts by hand in them count.
func TestIdlePeriodsAreRemembered(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		tidies := func(seconds ...int64) {
			for _, second := range seconds {
				sleepUntil(t, l, second)
				require.NoError(t, f.Add("other", 1))
				rotate(t, l)
				synctest.Wait()
				f.forgetIdle()
			}
		}
		sleepUntil(t, l, date(1, 15))
		q := Quota{Limit: 10, Start: date(1, 15), End: date(3, 15)}
		heldTo(t, f, "s", q)
		tidies(date(2, 2), date(3, 2))
		require.NoError(t, f.Add("s", 4))
		sleepUntil(t, l, date(3, 10))
		require.Equal(t, 6, admitted(t, f, "s", fixed(q), 100))

		q = Quota{Limit: 10, Start: date(3, 15), End: date(5, 15)}
		tidies(date(4, 2), date(5, 2))
		require.NoError(t, f.Add("s", 3))
		tidies(date(5, 4))
		require.Equal(t, 7, admitted(t, f, "s", fixed(q), 100), "the period that follows")
		tidies(date(6, 2), date(7, 2))
		require.NotNil(t, f.Tally("s"))
		tidies(date(8, 2))
		require.Nil(t, f.Tally("s"), "and then it is forgotten")
	})
}

// A period's end may be put off, and its start set back: what others used still counts.
func TestPeriodIsPutOff(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		sleepUntil(t, l, date(1, 20))
		require.Equal(t, 2, admitted(t, f, "s", fixed(Quota{Limit: 10, Start: date(1, 15), End: date(2, 15)}), 2))
		longer := Quota{Limit: 10, Used: 5, Start: date(1, 10), End: date(3, 10)}
		require.Equal(t, 3, admitted(t, f, "s", fixed(longer), 100))
		sleepUntil(t, l, date(2, 20))
		require.Zero(t, admitted(t, f, "s", fixed(longer), 100), "it is still the same")
		stale := Quota{Limit: 10, Used: 9, Start: date(1, 1), End: date(1, 10)}
		s := f.Look("s", stale)
		require.Zero(t, s.Used, "of a period that is over")
		sleepUntil(t, l, date(3, 10))
		require.Equal(t, 10, admitted(t, f, "s", fixed(Quota{Limit: 10, Start: date(3, 10), End: date(4, 10)}), 100))
	})
}

// Bounds that move with the clock don't begin a period with every window.
func TestSlidingBounds(t *testing.T) {
	t.Parallel()
	const day = 24 * 3600
	for name, bounds := range map[string]func(now int64) (start, end int64){
		"start":            func(now int64) (int64, int64) { return now - 30*day, 0 },
		"until now":        func(now int64) (int64, int64) { return now - 30*day, now },
		"until soon":       func(now int64) (int64, int64) { return now - 30*day, now + 60 },
		"until much later": func(now int64) (int64, int64) { return now - 30*day, now + 30*day },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, mode string) {
				dir := t.TempDir()
				l := open(t, mode, dir)
				f := feature(t, l, "calls", sink.Sum)
				sleepUntil(t, l, date(3, 3))
				q := func() Quota {
					q := Quota{Limit: 10}
					q.Start, q.End = bounds(time.Now().Unix())
					return q
				}
				total, most := 0, 2
				if name == "until now" {
					most = 100 // which must not have a period for its first window alone
				}
				for range 61 {
					for range 3 {
						time.Sleep(10 * time.Second) // into the window
						total += admitted(t, f, "s", q, most)
						time.Sleep(8*time.Hour - 11*time.Second)
						rotate(t, l)
					}
					if mode != "memory" && total%3 == 0 {
						l, f = again(t, l, mode, dir)
					}
				}
				require.GreaterOrEqual(t, total, 20)
				require.LessOrEqual(t, total, 30, "61 days, periods of 30")
			})
		})
	}
}

// An upgrade in the middle of a period begins another one.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "calls", sink.Sum)
		sleepUntil(t, l, date(1, 5))
		small := fixed(Quota{Limit: 3, Start: date(1, 1), End: date(2, 1)})
		require.Equal(t, 3, admitted(t, f, "s", small, 100))
		sleepUntil(t, l, date(1, 12))
		big := fixed(Quota{Limit: 8, Start: date(1, 11), End: date(2, 11)})
		require.Equal(t, 4, admitted(t, f, "s", big, 4))
		require.Zero(t, admitted(t, f, "s", small, 1), "an old verdict bounds the new period")
		l, f = again(t, l, mode, dir)
		rotate(t, l)
		require.Equal(t, 4, admitted(t, f, "s", big, 100))
	})
}

// A series with dimensions that was forgotten leaves nothing behind by which a tally
// would be forgotten that came later.
func TestForgottenSeriesKeepNoTally(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "memory", "")
		f := feature(t, l, "calls", sink.Sum)
		s, err := f.Series("s", map[string]string{"d": "1"})
		require.NoError(t, err)
		f.dimensioned.evict(l, func(s *Series) bool { return s.idle() })
		require.True(t, s.is(evicted))
		heldTo(t, f, "s", Quota{Limit: 5, Start: date(1, 1), End: date(1, 10)}) // in the midst of it
		f.plain.evict(l, func(s *Series) bool {
			s.unlinkEvicted()
			return false
		})
		sleepUntil(t, l, date(4, 1))
		f.forgetIdle()
		require.Nil(t, f.Tally("s"))
		q := Quota{Limit: 5, Start: date(4, 1), End: date(6, 1)}
		require.Equal(t, 3, admitted(t, f, "s", fixed(q), 3))
		sleepUntil(t, l, date(5, 3))
		f.forgetIdle()
		require.Equal(t, 2, admitted(t, f, "s", fixed(q), 100))
		require.NoError(t, s.Add(1))
		require.EqualValues(t, 6, f.Tally("s").Standing().Counted, "counts again")
	})
}
