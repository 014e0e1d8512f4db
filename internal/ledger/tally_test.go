package ledger

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// call is one that reserves held and counts n; false: it was refused.
func call(t testing.TB, f *Feature, subject string, q Quota, held, n int64) bool {
	t.Helper()
	tally, a, err := f.Reserve(nil, subject, &q, held, true)
	require.NoError(t, err)
	if a == Refused {
		return false
	}
	s, err := f.Series(subject, nil)
	require.NoError(t, err)
	require.NoError(t, s.AddHeld(n, tally, held, true))
	return true
}

// heldTo is how a subject stands with a quota that it is held to.
func heldTo(t testing.TB, f *Feature, subject string, q Quota) Standing {
	t.Helper()
	tally, a, err := f.Reserve(nil, subject, &q, 0, false)
	require.NoError(t, err)
	if a != Refused {
		tally.Release(0)
	}
	return tally.Standing()
}

func TestStandings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		s    Standing
		left int64
	}{
		{Standing{Limit: 10, Used: 3, Counted: 4, Held: 2}, 1},
		{Standing{Limit: 10, Used: 3, Counted: 9, Held: 2}, 0},
		{Standing{Limit: math.MaxInt64, Used: math.MaxInt64, Counted: 1, Held: 1}, 0},
		{Standing{Limit: math.MaxInt64, Used: 1, Counted: 1, Held: 1}, math.MaxInt64 - 3},
		{Standing{Limit: 0, Used: math.MaxInt64, Counted: 1}, 0},
	} {
		require.Equal(t, test.left, test.s.Left(), "%+v", test.s)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	for _, test := range [][3]int64{{100, 80, 80}, {3, 80, 3}, {3, 50, 2}, {0, 80, 1}, {1, 1, 1}, {math.MaxInt64, 100, math.MaxInt64}, {math.MaxInt64, math.MaxInt64, math.MaxInt64}} {
		require.Equal(t, test[2], share(test[0], int(test[1])), "%v", test)
	}
}

// Quotas with bounds of their own follow each other, end, come late and come early.
func TestPeriodsFollowQuotas(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		time.Sleep(100 * 24 * time.Hour) // 2000-04-10
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		day := func(d int) int64 { return time.Date(2000, 4, d, 12, 0, 0, 0, time.UTC).Unix() }
		until := func(d int) {
			time.Sleep(time.Until(time.Unix(day(d), 0)) + time.Second)
			require.NoError(t, l.Rotate(t.Context()))
		}
		is := func(q Quota, counted, start, end, used int64) {
			t.Helper()
			want := []int64{counted, start, end, used}
			s := f.Look("s", q)
			require.Equal(t, want, []int64{s.Counted, s.Start, s.End, s.Used})
			s = heldTo(t, f, "s", q)
			require.Equal(t, want, []int64{s.Counted, s.Start, s.End, s.Used})
		}
		a := Quota{Limit: 100, Used: 7, Start: day(1), End: day(20)}
		require.True(t, call(t, f, "s", a, 1, 5))
		is(a, 5, day(1), day(20), 7)
		is(Quota{Limit: 100}, 5, time.Date(2000, 4, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2000, 5, 1, 0, 0, 0, 0, time.UTC).Unix(), 0)
		b := Quota{Limit: 100, Used: 2, Start: day(20), End: day(50)}
		is(b, 5, time.Date(2000, 4, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2000, 5, 1, 0, 0, 0, 0, time.UTC).Unix(), 2) // not yet
		is(a, 5, day(1), day(20), 7)
		until(20)
		is(a, 0, day(20), 0, 0) // it is over, and nothing else is known yet
		require.True(t, call(t, f, "s", a, 1, 3))
		is(b, 3, day(20), day(50), 2)
		is(a, 3, day(20), day(50), 0) // an old verdict
		until(40)                     // in May
		require.True(t, call(t, f, "s", b, 1, 4))
		is(b, 7, day(20), day(50), 2)
		is(Quota{Limit: 100}, 4, time.Date(2000, 5, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2000, 6, 1, 0, 0, 0, 0, time.UTC).Unix(), 0)
		c := Quota{Limit: 100, Start: day(39), End: day(69)} // another plan since yesterday
		is(c, 4, day(39), day(69), 0)                        // of the window that runs
		require.True(t, call(t, f, "s", c, 1, 1))
		is(c, 5, day(39), day(69), 0)
		is(Quota{Limit: 100, Start: day(39), End: day(60)}, 5, day(39), day(60), 0)
	})
}

// Since ever.
func TestPeriodWithoutAStart(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		q := Quota{Limit: 3, End: time.Now().Add(1000 * 24 * time.Hour).Unix()}
		for range 3 {
			require.True(t, call(t, f, "s", q, 1, 1))
			time.Sleep(100 * 24 * time.Hour)
			require.NoError(t, l.Rotate(t.Context()))
			synctest.Wait()
		}
		require.False(t, call(t, f, "s", q, 1, 1))
	})
}

// What was counted in a period of a quota's own, from when its bounds were known, is
// known after every restart, whether it was settled, folded away or just counted.
func TestPeriodsSurvive(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%s %d", mode, seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { livePeriods(t, mode, t.TempDir(), seed) })
			})
		}
	}
}

func livePeriods(t *testing.T, mode, dir string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	cfg := testConfig(dir, func(c *Config) { c.Sync = map[bool]time.Duration{true: SyncAlways, false: time.Hour}[mode == "heap"] })
	if mode == "memory" {
		cfg.Dir = ""
	}
	l, err := openMode(cfg, mode)
	require.NoError(t, err)
	defer func() { l.Close(context.Background()) }()
	f := feature(t, l, "calls", sink.Sum)
	type count struct{ at, n int64 }
	var counts []count
	q := Quota{Limit: 1 << 40, Start: time.Now().Unix(), End: time.Now().Add(40 * 24 * time.Hour).Unix()}
	known := false
	for range 80 {
		switch op := random.IntN(10); {
		case op < 4:
			n := random.Int64N(100) + 1
			if random.IntN(2) == 0 {
				require.True(t, call(t, f, "s", q, random.Int64N(100), n))
				known = true
			} else if known {
				s, err := f.Series("s", map[string]string{"d": fmt.Sprint(random.IntN(3))})
				require.NoError(t, err)
				require.NoError(t, s.Add(n))
			} else {
				continue
			}
			counts = append(counts, count{l.active.Load().head.start, n})
		case op < 6:
			require.NoError(t, l.Rotate(context.Background()))
			synctest.Wait()
		case op < 7:
			foldAway(t, l)
		case op < 8:
			time.Sleep(time.Duration(random.IntN(10*24)) * time.Hour)
			require.NoError(t, l.Rotate(context.Background()))
			if time.Now().Unix() >= q.End && random.IntN(3) > 0 {
				q.Start = q.End
				for q.End <= time.Now().Unix() {
					q.Start, q.End = q.End, q.End+40*24*3600
				}
			}
		case mode == "memory":
		case op < 9:
			require.NoError(t, l.Close(context.Background()))
			l, err = openMode(cfg, mode)
			require.NoError(t, err)
			f = feature(t, l, "calls", sink.Sum)
		default:
			abandon(l)
			l, err = openMode(cfg, mode)
			require.NoError(t, err)
			f = feature(t, l, "calls", sink.Sum)
		}
		if tally := f.Tally("s"); tally != nil && known {
			s := tally.Standing()
			month, start, _ := f.Total("s")
			var inPeriod, inMonth int64
			for _, c := range counts {
				if c.at >= s.Start {
					inPeriod += c.n
				}
				if c.at >= start.Unix() {
					inMonth += c.n
				}
			}
			require.Equal(t, inMonth, month)
			require.Equal(t, inPeriod, s.Counted, "since %v", time.Unix(s.Start, 0).UTC())
			require.Zero(t, s.Held)
		}
	}
}
