package ledger

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func size(x *index) (n int) {
	x.each(func(*Series) { n++ })
	return n
}

// aMonthLater evicts who was not counted for a month.
func aMonthLater(l *Ledger) {
	l.evictedIn--
	l.evictIdle()
}

// TestIdleSeriesAreForgotten forgets those with dimensions, too, and has their handles
// count again.
func TestIdleSeriesAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "memory", "")
		synctest.Wait() // housekeeping evicts, too
		f := feature(t, l, "tokens", sink.Sum)
		const subjects, regions = 50, 3
		var handles []*Series
		for i := range subjects {
			for region := range regions {
				s, err := f.Series(fmt.Sprint(i), map[string]string{"region": fmt.Sprint(region)})
				require.NoError(t, err)
				handles = append(handles, s)
			}
		}
		require.Equal(t, subjects, size(f.plain))
		require.Equal(t, subjects*regions, size(f.dimensioned))
		require.NoError(t, handles[0].Add(1))
		aMonthLater(l)
		require.Equal(t, 1, size(f.plain))
		require.Equal(t, 1, size(f.dimensioned))

		for _, s := range handles {
			require.NoError(t, s.Add(2))
		}
		twin, err := f.Series("1", map[string]string{"region": "1"})
		require.NoError(t, err)
		require.NoError(t, twin.Add(3))
		for i := range subjects {
			total, _, _ := f.Total(fmt.Sprint(i))
			want := map[int]int64{0: 2*regions + 1, 1: 2*regions + 3}[i]
			require.Equal(t, max(want, 2*regions), total, i)
		}
		rotate(t, l)
		var billed int64
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			billed += r.Quantity
		}
		require.EqualValues(t, 2*subjects*regions+4, billed)
	})
}

// TestEvictionAmidNewSeries makes series with dimensions of subjects that are being
// evicted.
func TestEvictionAmidNewSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "memory", "")
		synctest.Wait() // housekeeping evicts, too
		f := feature(t, l, "tokens", sink.Sum)
		const rounds, subjects = 20, 300
		for round := range rounds {
			name := func(i int) string { return fmt.Sprintf("%d-%d", round, i) }
			for i := range subjects {
				_, err := f.Series(name(i), nil)
				require.NoError(t, err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 3 {
					aMonthLater(l)
				}
			})
			for g := range 2 {
				wg.Go(func() {
					for i := range subjects {
						s, err := f.Series(name(i), map[string]string{"g": fmt.Sprint(g)})
						if err != nil || s.Add(1) != nil {
							t.Error("not counted")
						}
					}
				})
			}
			wg.Wait()
			for i := range subjects {
				total, _, _ := f.Total(name(i))
				require.EqualValues(t, 2, total, name(i))
			}
		}
	})
}

// TestIdleSeriesPinNothing keeps a handle of each of many windows.
func TestIdleSeriesPinNothing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		s, err := feature(t, l, "tokens", sink.Sum).Series("acme", nil)
		require.NoError(t, err)
		require.NoError(t, s.Add(1))
		s.divide(s.seg.Load())
		require.NotNil(t, s.spread.Load())
		rotate(t, l)
		require.Nil(t, s.seg.Load())
		require.Nil(t, s.word.Load())
		require.Nil(t, s.spread.Load())
		time.Sleep(time.Second)
		require.NoError(t, s.Add(2))
		rotate(t, l)
		require.EqualValues(t, 3, sum(deliver(t, l, 0, sink.Delivered), "tokens", "acme"))
	})
}
