package stripesink

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEnds(0, 1000)
		now := time.Now()
		require.Zero(t, e.next(now))
		at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second).UTC() }
		e.add("si_1", at(100).Unix(), 0)
		e.add("si_2", at(110).Unix(), at(100).Unix(), now.Unix(), at(-5).Unix())
		require.Len(t, e.all, 2)
		for after, want := range map[int]int{-1000: 85, 0: 85, 84: 85, 85: 95, 94: 95, 95: 100, 99: 100, 100: 110, 109: 110} {
			require.Equal(t, at(want), e.next(at(after)), "after %d", after)
		}
		require.Equal(t, at(100), e.next(at(100).Add(-time.Nanosecond)))
		require.Zero(t, e.next(at(110)))
		time.Sleep(105 * time.Second)
		e.add("si_1", at(500).Unix())
		require.Equal(t, at(110), e.next(at(105)))
		require.Equal(t, at(485), e.next(at(110)))
		require.Len(t, e.all, 2)
	})
}

// The window that begins at the lead must be able to end with the period, and what the
// one before counted must get through.
func TestLeadOfAnEnd(t *testing.T) {
	t.Parallel()
	tests := []struct {
		apart time.Duration
		items int
		known time.Duration // before the end
		want  time.Duration // before the end; 0: no window ends there
	}{
		{3 * time.Second, 1, time.Hour, 15 * time.Second},
		{3 * time.Second, 9, time.Hour, 15 * time.Second},
		{3 * time.Second, 10, time.Hour, 16 * time.Second},
		{3 * time.Second, 1500, time.Hour, 165 * time.Second},
		{62 * time.Second, 1, time.Hour, 63 * time.Second},
		{62 * time.Second, 1500, time.Hour, 213 * time.Second},
		{3 * time.Second, 1500, 100 * time.Second, 97 * time.Second}, // known late: as soon as can be
		{3 * time.Second, 1500, 18 * time.Second, 15 * time.Second},
		{3 * time.Second, 1500, 15 * time.Second, 0},
		{62 * time.Second, 1, 60 * time.Second, 0},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			e := newEnds(test.apart, 20)
			end := time.Now().Add(test.known).UTC()
			for range 2 { // knowing again changes nothing
				for i := range test.items {
					e.add(fmt.Sprint("si_", i), end.Unix())
				}
			}
			require.Equal(t, end.Add(-test.want), e.next(time.Now()), "%+v", test)
			require.Equal(t, end, e.next(end.Add(-time.Second)))
		})
	}
}

// A moment that has come is not moved behind, whoever is known afterwards.
func TestLeadStaysWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEnds(0, 20)
		end := time.Now().Add(time.Hour).UTC()
		e.add("si_0", end.Unix())
		require.Equal(t, end.Add(-15*time.Second), e.next(time.Now()))
		time.Sleep(time.Hour - 20*time.Second)
		for i := range 1000 {
			e.add(fmt.Sprint("si_", i), end.Unix())
		}
		require.Equal(t, end.Add(-17*time.Second), e.next(time.Now()), "at the soonest that is heard of")
		time.Sleep(4 * time.Second)
		e.add("si_1000", end.Unix())
		require.Equal(t, end, e.next(time.Now()))
	})
}

// Against the plain way to find it.
func TestEndsAreTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		e := newEnds(0, 1e9)
		var moments []time.Time
		for range 200 {
			end := time.Now().Add(time.Duration(1+random.IntN(1000)) * time.Second).UTC()
			e.add("si_1", end.Unix())
			moments = append(moments, end, end.Add(-minLead))
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
