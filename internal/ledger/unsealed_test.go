package ledger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// retireOnly has a window end as rotate does, up to its sealing, which the test does.
func retireOnly(t testing.TB, l *Ledger) (seal func()) {
	t.Helper()
	require.NoError(t, l.rotating.lock(t.Context()))
	old := l.active.Load()
	next := l.prepare(l.extentWanted(old))
	require.NoError(t, l.activate(next, l.nextStart(old)))
	l.retire(old, next)
	return func() {
		l.sealRetired()
		l.rotating.unlock()
	}
}

// What a series has counted in a window that is over, and not sealed, is part of all that
// is told of it, though it counts in the next one already.
func TestCountsAreSeenWhileTheirWindowIsSealed(t *testing.T) {
	t.Parallel()
	for name, q := range map[string]Quota{
		"month":  {Limit: 10},
		"period": {Limit: 10, Start: date(1, 1), End: date(2, 10)},
	} {
		for _, known := range []bool{false, true} {
			if known {
				name += ", known before"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				eachMode(t, func(t *testing.T, mode string) {
					l := open(t, mode, t.TempDir())
					f := feature(t, l, "calls", sink.Sum)
					if known {
						heldTo(t, f, "s", q)
					}
					require.NoError(t, f.Add("s", 5))
					require.NoError(t, f.event("s", "before", 2))
					time.Sleep(5 * time.Second)
					seal := retireOnly(t, l)
					require.NoError(t, f.event("s", "after", 1))
					require.EqualValues(t, 8, totalOf(f, "s"))
					require.Equal(t, 1, admitted(t, f, "s", fixed(q), 1))
					require.NoError(t, f.plain.find("s").Add(1))
					require.EqualValues(t, 10, totalOf(f, "s"))
					seal()
					require.EqualValues(t, 10, totalOf(f, "s"))
					require.Zero(t, admitted(t, f, "s", fixed(q), 100))
					rotate(t, l)
					require.EqualValues(t, 10, totalOf(f, "s"))
					require.EqualValues(t, 10, heldTo(t, f, "s", q).Counted)
				})
			})
		}
	}
}

// A backdated series is forgotten between being found and being counted in: it counts when
// it was used.
func TestBackdatedSeriesIsForgottenBeforeItCounts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ start, used, inPeriod, inMonth int64 }{
		"in the period, of last month":    {date(1, 20), date(1, 25), 5, 0},
		"in the month, before the period": {date(2, 9), date(2, 5), 0, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, mode string) {
				l := open(t, mode, t.TempDir())
				f := feature(t, l, "calls", sink.Sum)
				q := Quota{Limit: 10, Start: test.start, End: date(3, 1)}
				sleepUntil(t, l, test.start)
				heldTo(t, f, "s", q)
				sleepUntil(t, l, date(2, 10))
				s, err := f.SeriesAt("s", nil, time.Unix(test.used, 0))
				require.NoError(t, err)
				l.tidyBackdated()
				require.True(t, s.is(evicted))
				require.NoError(t, s.Add(5))
				require.Equal(t, test.inPeriod, heldTo(t, f, "s", q).Counted)
				require.Equal(t, test.inMonth, heldTo(t, f, "s", Quota{Limit: 10}).Counted)
				require.Equal(t, test.inMonth, totalOf(f, "s"))
			})
		})
	}
}

// A count that did not know of a tally, because that was made meanwhile, is counted in it
// once, and when it was used.
func TestCountPastATallyThatWasJustMade(t *testing.T) {
	t.Parallel()
	for name, used := range map[string]int64{"now": 0, "in the period": date(1, 25), "before it": date(1, 15)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, mode string) {
				for _, seen := range []bool{false, true} {
					l := open(t, mode, t.TempDir())
					f := feature(t, l, "calls", sink.Sum)
					sleepUntil(t, l, max(time.Now().Unix(), date(2, 10)))
					at := time.Time{}
					if used != 0 {
						at = time.Unix(used, 0)
					}
					s, err := f.SeriesAt("s", nil, at)
					require.NoError(t, err)
					q := Quota{Limit: 10, Start: date(1, 20), End: date(3, 20)}
					p, err := s.register()
					require.NoError(t, err)
					if !seen {
						heldTo(t, f, "s", q)
					}
					require.Equal(t, counted, p.add(4)) // as if it had found no tally
					if seen {
						heldTo(t, f, "s", q)
					}
					s.missed(p.seg, 4)
					want := int64(4)
					if used == date(1, 15) {
						want = 0
					}
					require.Equal(t, want, heldTo(t, f, "s", q).Counted, "seen when it was made: %v", seen)
					require.Equal(t, totalOf(f, "s"), heldTo(t, f, "s", Quota{Limit: 10}).Counted)
					shut(t, l)
				}
			})
		})
	}
}

// However much is held where there is no limit, nobody is refused, and all is given back.
func TestHoldsWithoutALimit(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		q := Quota{Limit: -1}
		const many = 5000
		var tally *Tally
		for i := range many {
			held, a, err := f.Reserve(tally, "s", &q, MaxQuantity, true)
			require.NoError(t, err)
			require.Equal(t, Within, a, i)
			tally = held
		}
		require.False(t, call(t, f, "s", Quota{Limit: 10}, 1, 1))
		for range many {
			tally.Release(MaxQuantity)
		}
		require.Zero(t, tally.Standing().Held)
		require.Equal(t, 10, admitted(t, f, "s", fixed(Quota{Limit: 10}), 100))
	})
}
