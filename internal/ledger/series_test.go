package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestSpreadAfterSealing lets two writers be preempted on one cell over a
// rotation, one after a collision: neither may count where nobody looks again.
func TestSpreadAfterSealing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "report", sink.Sum)
		s, err := f.Series("acme", nil)
		require.NoError(t, err)
		require.NoError(t, s.Add(3))
		p, ok := s.place()
		require.True(t, ok)
		rotate(t, l)
		s.divide(p.seg)
		require.Nil(t, p.seg.spread(p.seg.cell(p.cell).block))
		require.Equal(t, retired, p.add(5))
	})
}

// TestSpreadStaysWithinTheLimit adds more at once than a stripe's share.
func TestSpreadStaysWithinTheLimit(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int64{"small": 1000, "large": 1 << 41, "none": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, "memory", "", func(c *Config) { c.Routes[0].MaxQuantity = limit })
			f := feature(t, l, "report", sink.Sum)
			s, err := f.Series("acme", nil)
			require.NoError(t, err)
			require.NoError(t, s.Add(1))
			s.divide(s.seg.Load())
			most := l.maxQuantity
			var want int64 = 1
			for _, n := range []int64{100, most / 100, most / 3, most, most / 2, 7} {
				require.NoError(t, s.Add(n))
				want += n
			}
			rotate(t, l)
			records := deliver(t, l, 0, sink.Delivered)
			require.EqualValues(t, want, sum(records, "report", "acme"))
			require.Less(t, len(records), 6)
		})
	}
}

// TestSyncAlwaysAfterReopen makes a series of an earlier run wait for the disk,
// too.
func TestSyncAlwaysAfterReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "heap", dir, always)
	require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 1))
	require.NoError(t, l.Close(context.Background()))
	l, err := openMode(testConfig(dir, always), "heap")
	require.NoError(t, err)
	f := feature(t, l, "calls", sink.Sum)
	for range 3 {
		require.NoError(t, f.Add("ann", 2)) // the second one finds its slot
	}
	abandon(l)
	require.Equal(t, map[string]int64{"calls/ann": 7}, recovered(t, "heap", dir))
}

// TestLastTotalFollowsTime reads the windows of a Last in any order.
func TestLastTotalFollowsTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, "mapped", dir)
	f := feature(t, l, "seats", sink.Last)
	for level := range int64(5) {
		require.NoError(t, f.Set("ann", 10-level))
		rotate(t, l)
	}
	require.NoError(t, l.Close(context.Background()))
	for range 5 {
		l = open(t, "mapped", dir)
		total, _, _ := feature(t, l, "seats", sink.Last).Total("ann")
		require.EqualValues(t, 6, total)
		require.NoError(t, l.Close(context.Background()))
	}
}

// A series whose one word is all but full is spread over stripes, which could take
// more than a record may carry.
func TestSpreadLeavesRoom(t *testing.T) {
	t.Parallel()
	l := open(t, "memory", "", func(c *Config) { c.Routes[0].MaxQuantity = 1 << 40 })
	f := feature(t, l, "tokens", sink.Sum)
	require.NoError(t, f.Add("acme", 1<<40-10))
	s, err := f.Series("acme", nil)
	require.NoError(t, err)
	s.divide(s.seg.Load()) // what count does after a lost compare-and-swap
	for range 1000 {
		require.NoError(t, f.Add("acme", 1000))
	}
	require.NoError(t, l.Rotate(context.Background()))
	deliver(t, l, 0, sink.Delivered)
	require.Empty(t, held(l, "main"))
	require.NoError(t, l.Health())
}

// TestHandleOfAnEvictedSeries keeps a handle over a month without use, while the
// same customer is counted by name again.
func TestHandleOfAnEvictedSeries(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		old, err := f.Series("ann", nil)
		require.NoError(t, err)
		require.NoError(t, old.Add(1))
		rotate(t, l)
		for range 2 { // the first begins the month, and finds that ann was used before it
			time.Sleep(31 * 24 * time.Hour)
			require.NoError(t, f.Add("bob", 1))
			rotate(t, l)
			l.tidy()
		}
		require.True(t, old.is(evicted))
		require.NoError(t, f.Add("ann", 2))
		twin, err := f.Series("ann", nil)
		require.NoError(t, err)
		require.NotSame(t, old, twin)
		require.NoError(t, old.Add(3))
		total, _, _ := f.Total("ann")
		require.EqualValues(t, 5, total, "in one slot")
		most := l.maxQuantity
		require.NoError(t, old.Add(most-1), "more than the word's own share")
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, 1+5+most-1, sum(records, "calls", "ann"))
	})
}
