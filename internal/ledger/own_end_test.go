package ledger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// A period that ended within the running window is bounded until the next one begins, and
// the one behind it is, too.
func TestPeriodEndedWithinTheWindow(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int64{"never heard of": 0, "was to end later": 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDirMode(t, func(t *testing.T, mode, dir string) {
				l := open(t, mode, dir)
				f := feature(t, l, "calls", sink.Sum)
				sleepUntil(t, l, date(2, 10))
				q := Quota{Limit: 10, Used: 2, Start: date(2, 5), End: date(3, 10)}
				if before > 0 {
					require.EqualValues(t, before, admitted(t, f, "s", fixed(q), int(before)))
				}
				time.Sleep(30 * time.Second)
				q.End = time.Now().Unix() - 10
				require.EqualValues(t, 8-before, admitted(t, f, "s", fixed(q), 1000))
				rotate(t, l)
				require.Equal(t, 9, admitted(t, f, "s", fixed(q), 9))
				next := Quota{Limit: 10, Start: q.End, End: date(3, 20)}
				want := heldTo(t, f, "s", next)
				require.Equal(t, []int64{9, next.Start, next.End}, []int64{want.Counted, want.Start, want.End})
				l, f = again(t, l, mode, dir)
				require.Equal(t, want, heldTo(t, f, "s", next))
				require.Equal(t, 1, admitted(t, f, "s", fixed(next), 100))
				require.NoError(t, l.Close(t.Context()))
			})
		})
	}
}

// The period behind one that ended unasked learns its end from a quota that began
// elsewhere, as after a change of plans, or has no start at all.
func TestPeriodThatFollowedUnaskedLearnsItsEnd(t *testing.T) {
	t.Parallel()
	for name, starts := range map[string][2]int64{
		"another start": {date(1, 1), date(2, 5)},
		"no start":      {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, mode string) {
				l := open(t, mode, t.TempDir())
				f := feature(t, l, "calls", sink.Sum)
				require.Equal(t, 1, admitted(t, f, "s", fixed(Quota{Limit: 10, Start: starts[0], End: date(2, 10)}), 1))
				sleepUntil(t, l, date(2, 12))
				q := Quota{Limit: 10, Start: starts[1], End: date(3, 5)}
				require.Equal(t, 10, admitted(t, f, "s", fixed(q), 100))
				s := heldTo(t, f, "s", q)
				require.Equal(t, []int64{date(2, 10), q.End}, []int64{s.Start, s.End})
				sleepUntil(t, l, date(3, 6))
				require.Equal(t, 10, admitted(t, f, "s", fixed(q), 100), "and goes on from there")
			})
		})
	}
}

// Without a start, an end that is told once the period's own has come is the next one's,
// also while the window runs in which that was.
func TestNextEndWithoutAStart(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"live": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDirMode(t, func(t *testing.T, mode, dir string) {
				l := open(t, mode, dir)
				f := feature(t, l, "calls", sink.Sum)
				ends := []int64{time.Now().Unix() + 90, date(1, 10), date(2, 10)}
				require.Equal(t, 6, admitted(t, f, "s", fixed(Quota{Limit: 10, End: ends[0]}), 6))
				for _, end := range ends[1:] {
					q := Quota{Limit: 10, End: end}
					time.Sleep(100 * time.Second)
					require.Equal(t, 4, admitted(t, f, "s", fixed(q), 100), "of the period before")
					rotate(t, l)
					if restart {
						_, f = again(t, l, mode, dir)
						require.Equal(t, 10, admitted(t, f, "s", fixed(q), 100))
						require.Equal(t, end, heldTo(t, f, "s", q).End)
						return
					}
					require.Equal(t, 6, admitted(t, f, "s", fixed(q), 6))
					require.Equal(t, end, heldTo(t, f, "s", q).End)
					sleepUntil(t, l, end-50)
				}
			})
		})
	}
}
