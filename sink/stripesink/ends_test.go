package stripesink

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e ends
		now := time.Now()
		require.Zero(t, e.next(now))
		at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second).UTC() }
		e.add(at(100).Unix(), 0, at(110).Unix(), at(100).Unix(), now.Unix(), at(-5).Unix())
		require.Len(t, e.seconds, 2)
		for after, want := range map[int]int{-1000: 85, 0: 85, 84: 85, 85: 95, 94: 95, 95: 100, 99: 100, 100: 110, 109: 110} {
			require.Equal(t, at(want), e.next(at(after)), "after %d", after)
		}
		require.Equal(t, at(100), e.next(at(100).Add(-time.Nanosecond)))
		require.Zero(t, e.next(at(110)))
		time.Sleep(105 * time.Second)
		e.add(at(500).Unix())
		require.Equal(t, []int64{at(110).Unix(), at(500).Unix()}, e.seconds)
	})
}

// Against the plain way to find it.
func TestEndsAreTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		var e ends
		var moments []time.Time
		for range 200 {
			end := time.Now().Add(time.Duration(1+random.IntN(1000)) * time.Second).UTC()
			e.add(end.Unix())
			moments = append(moments, end, end.Add(-endLead))
			after := time.Now().Add(time.Duration(random.Int64N(int64(1100 * time.Second))))
			var want time.Time
			for _, m := range moments {
				if m.After(after) && (want.IsZero() || m.Before(want)) {
					want = m
				}
			}
			require.Equal(t, want, e.next(after))
		}
	})
}
