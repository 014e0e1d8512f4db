package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// Whatever quotas say and in what order, a period has what was known when it was learned
// and the windows since then, in the running process and after every restart.
func TestPeriodsAreTheSameAfterRestarts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		mode := modes[seed%3]
		t.Run(fmt.Sprintf("%s %d", mode, seed), func(t *testing.T) {
			t.Parallel()
			dir := quickDir(t)
			synctest.Test(t, func(t *testing.T) { anyPeriods(t, mode, dir, seed) })
		})
	}
}

func anyPeriods(t *testing.T, mode, dir string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	l := open(t, mode, dir)
	f := feature(t, l, "calls", sink.Sum)
	type count struct{ at, used, n int64 }
	var counts []count
	const day = 24 * 3600
	q := Quota{Limit: 1 << 40}
	for step := range 250 {
		now := time.Now().Unix()
		n := random.Int64N(100) + 1
		noted := func() {
			at := l.active.Load().head.start
			counts = append(counts, count{at, at, n})
		}
		switch random.IntN(14) {
		case 0, 1:
			require.True(t, call(t, f, "s", q, random.Int64N(100), n))
			noted()
		case 2:
			s, err := f.Series("s", map[string]string{"d": fmt.Sprint(random.IntN(3))})
			require.NoError(t, err)
			require.NoError(t, s.Add(n))
			noted()
		case 3:
			require.NoError(t, f.event("s", fmt.Sprint(step), n))
			noted()
		case 4:
			month, _ := monthBounds(monthOf(now))
			q.Start = []int64{0, now - 30*day, month.Unix(), month.Unix() - day, now - 3*day, now, now + day, q.End, l.active.Load().head.start}[random.IntN(9)]
			q.End = []int64{0, q.Start, now, now + 5, now + 10*day, now + 40*day, q.End}[random.IntN(7)]
		case 5, 6:
			rotate(t, l)
			synctest.Wait()
		case 7:
			foldAway(t, l)
		case 8:
			time.Sleep(time.Duration(random.IntN(7*day)) * time.Second)
			rotate(t, l)
		case 9:
			heldTo(t, f, "s", q)
		case 10, 11:
			used := time.Unix(now-1-random.Int64N(50*day), 0)
			s, err := f.SeriesAt("s", nil, used)
			require.NoError(t, err)
			seg := l.active.Load()
			if random.IntN(2) == 0 {
				require.NoError(t, s.Add(n))
			} else {
				require.NoError(t, f.AddEvent("s", nil, used, "", fmt.Sprint(step), n))
			}
			at := s.when(seg)
			counts = append(counts, count{at.counted, at.used, n})
		default:
			if mode == "memory" {
				continue
			}
			if random.IntN(2) == 0 {
				require.NoError(t, l.Close(context.Background()))
			} else {
				require.NoError(t, l.active.Load().journal.sync())
				abandon(l)
			}
			l = open(t, mode, dir)
			synctest.Wait()
			f = feature(t, l, "calls", sink.Sum)
		}
		if tally := f.Tally("s"); tally != nil {
			tally.Standing()
			own := tally.own
			want, inMonth := own.base, int64(0)
			month, start, _ := f.Total("s")
			for _, c := range counts {
				if own.end != 0 && c.at >= own.since && c.used >= own.start {
					want += c.n
				}
				if c.used >= start.Unix() {
					inMonth += c.n
				}
			}
			require.Equal(t, inMonth, month, "step %d", step)
			require.Equal(t, inMonth, tally.month.counted, "step %d", step)
			require.Equal(t, want, own.counted, "step %d: %+v", step, own)
			require.Zero(t, tally.held)
		}
	}
}
