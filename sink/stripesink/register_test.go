package stripesink

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// window is a span of seconds, as the ledger makes them.
type window struct{ start, end int64 }

// windows are those of one series and directory: apart seconds or more between their
// begins, ended early by bills, Flush and restarts, with gaps where nobody ran.
func windows(random *rand.Rand, apart int64) (all []window) {
	at := int64(1_772_366_400) + random.Int64N(600)
	for range 40 {
		length := []int64{apart, apart + random.Int64N(3), 1, 60, 1 + random.Int64N(90)}[random.IntN(5)]
		w := window{at, at + length}
		at = max(w.end, w.start+apart)
		if w.end < at && random.IntN(2) == 0 {
			w.end = at // it went on until it might end
		}
		if random.IntN(8) == 0 {
			at += random.Int64N(300)
		}
		all = append(all, w)
	}
	return all
}

// merged joins some windows as a long outage does: the begin is that of the first,
// which has no record of its own any more; those between may have.
func merged(random *rand.Rand, all []window) []window {
	first := random.IntN(len(all) - 2)
	last := first + 1 + random.IntN(len(all)-first-1)
	kept := append([]window{}, all[:first]...)
	kept = append(kept, window{all[first].start, all[last].end})
	for _, w := range all[first+1 : last+1] {
		if random.IntN(3) == 0 {
			kept = append(kept, w)
		}
	}
	return append(kept, all[last+1:]...)
}

func TestNoTwoRecordsShareASecond(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 0))
		g := registers{[]int64{1, 2, 3, 7, 60}[seed%5]}
		apart := int64(g.apart() / time.Second)
		for _, kind := range []sink.Kind{sink.Sum, sink.Max, sink.Last} {
			taken := map[int64]window{}
			for instance := range g.instances {
				all := windows(random, apart)
				if kind == sink.Sum && random.IntN(2) == 0 {
					all = merged(random, all)
				}
				for _, w := range all {
					r := sink.Record{Kind: kind, Instance: int(instance), Start: time.Unix(w.start, 0), End: time.Unix(w.end, 0)}
					second := g.second(r)
					other, shared := taken[second]
					require.False(t, shared, "seed %d, %v: %v and %v share second %d", seed, kind, w, other, second)
					taken[second] = w
					inside := second > w.start && (second < w.end || w.end-w.start < apart)
					require.True(t, inside, "%v begins a bill or stands beyond: %d", w, second)
					require.NotEqual(t, second, g.spare(second))
				}
			}
		}
	}
}

// Whatever an implementation remembers, a restart forgets.
func TestSecondIsOfTheRecordAlone(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_772_366_400, 0) // divisible by 2, 3 and 4
	tests := []struct {
		instances int64
		r         sink.Record
		want      int64 // after at
	}{
		{1, sink.Record{Start: at, End: at.Add(time.Minute)}, 2},
		{1, sink.Record{Start: at.Add(time.Second), End: at.Add(time.Minute)}, 2},
		{1, sink.Record{Start: at, End: at.Add(time.Hour)}, 2},
		{2, sink.Record{Start: at, End: at.Add(time.Minute)}, 3},
		{2, sink.Record{Start: at, End: at.Add(time.Minute), Instance: 1}, 1},
		{1, sink.Record{Start: at, End: at.Add(time.Minute), Kind: sink.Max}, 58},
		{2, sink.Record{Start: at, End: at.Add(time.Minute), Kind: sink.Last}, 57},
		{2, sink.Record{Start: at, End: at.Add(time.Second), Kind: sink.Last}, 3},
	}
	for _, test := range tests {
		require.Equal(t, at.Unix()+test.want, registers{test.instances}.second(test.r), "%+v", test)
	}
	require.Equal(t, at.Unix()-1, registers{1}.spare(at.Unix()))
	require.Equal(t, int64(-1), registers{1}.spare(-1), "before 1970, too")
}
