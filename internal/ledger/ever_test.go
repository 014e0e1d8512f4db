package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// upTo makes calls of 1 until one is refused.
func upTo(t testing.TB, f *Feature, subject string, limit int64) (n int) {
	t.Helper()
	for {
		tally, ok, err := f.ReserveEver(nil, subject, limit, 1, true)
		require.NoError(t, err)
		if !ok {
			return n
		}
		require.NoError(t, tally.Series().AddHeld(1, tally, 1, true))
		n++
	}
}

// What was counted since ever stays that when periods end of quotas that the subject
// has, or had, over restarts and folding.
func TestEverIsNoPeriod(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		f := feature(t, l, "calls", sink.Sum)
		month := Quota{Limit: 100, Start: date(1, 1), End: date(1, 10)}
		require.Equal(t, 50, admitted(t, f, "s", fixed(month), 50))
		rotate(t, l)
		require.Zero(t, upTo(t, f, "s", 10), "nothing was begun")
		counted, err := f.BeginEver("s")
		require.NoError(t, err)
		require.Zero(t, counted)
		require.Equal(t, 10, upTo(t, f, "s", 10))
		l, f = again(t, l, mode, dir)
		require.Zero(t, upTo(t, f, "s", 10))
		require.Equal(t, 5, admitted(t, f, "s", fixed(month), 5))
		foldAway(t, l)
		for day := 11; day < 80; day += 20 { // the quota's period ends, and months do
			sleepUntil(t, l, date(1, day))
			require.Zero(t, upTo(t, f, "s", 15))
			l, f = again(t, l, mode, dir)
			require.Zero(t, upTo(t, f, "s", 15))
			foldAway(t, l)
		}
		require.Equal(t, 5, admitted(t, f, "s", fixed(Quota{Limit: 5, Start: date(3, 1), End: date(5, 1)}), 100), "nor does a quota know of it")
		require.Equal(t, 1, upTo(t, f, "s", 21))
		require.EqualValues(t, 6, f.Tally("s").Standing().Counted)
		counted, err = f.BeginEver("s")
		require.NoError(t, err)
		require.EqualValues(t, 21, counted, "again, it goes on")
	})
}

// The count since ever is what was added, by hand, dated, as events, through quotas that
// come and go, over restarts and folding.
func TestEverIsWhatWasAdded(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		eachDirMode(t, func(t *testing.T, mode, dir string) {
			r := rand.New(rand.NewPCG(seed, 5))
			l := open(t, mode, dir)
			f := feature(t, l, "calls", sink.Sum)
			_, err := f.BeginEver("s")
			require.NoError(t, err)
			want := int64(0)
			for i := range 150 {
				n := 1 + r.Int64N(9)
				switch r.IntN(10) {
				case 0:
					l, f = again(t, l, mode, dir)
				case 1:
					foldAway(t, l)
				case 2:
					time.Sleep(time.Duration(r.Int64N(int64(20 * 24 * time.Hour))))
					rotate(t, l)
				case 3:
					time.Sleep(time.Duration(r.Int64N(int64(3 * time.Minute))))
					rotate(t, l)
				case 4:
					now := time.Now().Unix()
					q := Quota{Limit: 1 << 40, Start: now - r.Int64N(1e6), End: now + r.Int64N(1e6)}
					want += int64(admitted(t, f, "s", fixed(q), 1))
				case 5:
					s, err := f.Series("s", map[string]string{"d": string(rune('a' + r.IntN(3)))})
					require.NoError(t, err)
					require.NoError(t, s.Add(n))
					want += n
				case 6:
					at := time.Now().Add(-time.Duration(r.Int64N(int64(40 * 24 * time.Hour))))
					s, err := f.SeriesAt("s", nil, at)
					require.NoError(t, err)
					require.NoError(t, s.Add(n))
					want += n
				case 7:
					require.NoError(t, f.AddEvent("s", nil, time.Time{}, "", string(rune(0x4e00+i)), n))
					want += n
				default:
					require.NoError(t, f.Add("s", n))
					want += n
				}
				counted, _ := f.Ever("s")
				require.Equal(t, want, counted, "seed %d, step %d", seed, i)
			}
		})
	}
}

// A count that could not be kept is not taken for one that is.
func TestEverThatCantBeKept(t *testing.T) {
	t.Parallel()
	eachDirMode(t, func(t *testing.T, mode, dir string) {
		var failing atomic.Bool
		l := open(t, mode, dir, func(c *Config) {
			c.Sync = time.Second
			c.step = func(step string) error {
				if failing.Load() && step == "append periods" || failing.Load() && step == "create periods" {
					return errors.New("input/output error")
				}
				return nil
			}
		})
		f := feature(t, l, "calls", sink.Sum)
		failing.Store(true)
		for range 2 {
			_, err := f.BeginEver("s")
			require.Error(t, err)
		}
		failing.Store(false)
		time.Sleep(time.Minute) // it is mended
		synctest.Wait()
		_, err := f.BeginEver("s")
		require.NoError(t, err)
		require.NoError(t, f.Add("s", 3))
		rotate(t, l)
		_, f = again(t, l, mode, dir)
		counted, err := f.BeginEver("s")
		require.NoError(t, err)
		require.EqualValues(t, 3, counted)
	})
}

// What is counted while the count begins is in it, once.
func TestEverBeginsWhileOthersCount(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		for i := range 300 {
			subject := fmt.Sprint("s", i)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range 20 {
						assert(t, f.Add(subject, 1))
					}
				})
			}
			all.Go(func() {
				_, err := f.BeginEver(subject)
				assert(t, err)
			})
			all.Wait()
			counted, _ := f.Ever(subject)
			require.EqualValues(t, 80, counted, subject)
		}
	})
}

func assert(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}
