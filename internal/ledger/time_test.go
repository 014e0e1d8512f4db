package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func minutely(c *Config) { c.Window = time.Minute }

func TestWindowsEndAtWholeMinutes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		time.Sleep(90*time.Minute + 17*time.Second)
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		opened := time.Now().UTC()
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(time.Minute) // over the end of the window
		require.NoError(t, f.Add("acme", 2))
		time.Sleep(time.Minute)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		time.Sleep(45 * time.Minute) // idle
		late := time.Now().UTC()
		require.NoError(t, f.Add("acme", 4))
		time.Sleep(time.Minute)
		synctest.Wait()
		records = append(records, deliver(t, l, 0, sink.Delivered)...)
		require.Len(t, records, 3)
		minute := opened.Truncate(time.Minute)
		require.Equal(t, opened, records[0].Start)
		require.Equal(t, minute.Add(time.Minute), records[0].End)
		require.Equal(t, minute.Add(time.Minute), records[1].Start)
		require.Equal(t, minute.Add(2*time.Minute), records[1].End)
		require.Equal(t, late.Truncate(time.Minute), records[2].Start, "an idle hour is in nobody's window")
		require.Equal(t, late.Truncate(time.Minute).Add(time.Minute), records[2].End)
	})
}

func TestTotalsBeginAnewEachMonth(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		handle, err := f.Series("acme", nil)
		require.NoError(t, err)
		require.NoError(t, handle.Add(5))
		total, start, end := f.Total("acme")
		require.EqualValues(t, 5, total)
		require.Equal(t, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), start)
		require.Equal(t, time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC), end)
		time.Sleep(time.Hour)
		total, _, _ = f.Total("acme")
		require.EqualValues(t, 5, total)
		time.Sleep(time.Until(end) + time.Second) // the old window has ended
		total, start, _ = f.Total("acme")
		require.Zero(t, total)
		require.Equal(t, end, start)
		require.NoError(t, f.Add("other", 1))
		time.Sleep(2 * time.Minute) // the first window of the month: idle series are forgotten
		synctest.Wait()
		require.Nil(t, f.plain.find("acme"))
		require.NoError(t, handle.Add(7), "a handle outlives its place in the index")
		require.NoError(t, f.Add("acme", 1))
		total, _, _ = f.Total("acme")
		require.EqualValues(t, 8, total)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.EqualValues(t, 5+7+1, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	})
}

// TestTwinHandles lets an old handle and a new series of one name count at once:
// they must share one slot.
func TestTwinHandles(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		f := feature(t, l, "calls", sink.Sum)
		old, err := f.Series("acme", nil)
		require.NoError(t, err)
		time.Sleep(32 * 24 * time.Hour)
		require.NoError(t, f.Add("other", 1))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		fresh, err := f.Series("acme", nil)
		require.NoError(t, err)
		require.NotSame(t, old, fresh)
		deliver(t, l, 0, sink.Delivered)
		require.NoError(t, old.Add(1))
		require.NoError(t, fresh.Add(2))
		require.NoError(t, old.Add(4))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 1, "one record per series and window")
		require.EqualValues(t, 7, records[0].Quantity)
	})
}

func TestDoubtExpires(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, func(c *Config) { c.Routes[0].DedupeWindow = 24 * time.Hour })
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		attempt(t, l, sink.InDoubt)
		time.Sleep(22*time.Hour + 50*time.Minute)
		attempt(t, l, sink.InDoubt)
		time.Sleep(11 * time.Minute) // past 24 h less the margin, from the first attempt on
		b, err := l.Take(0, 1, nil)
		require.NoError(t, err)
		require.Nil(t, b, "the sink may have forgotten the ID")
		require.ErrorContains(t, l.Health(), "quarantined")
	})
}

func TestTooOldIsQuarantinedUnsent(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, func(c *Config) { c.Routes[0].MaxAge = 48 * time.Hour })
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		time.Sleep(49 * time.Hour)
		b, err := l.Take(0, 1, nil)
		require.NoError(t, err)
		require.Nil(t, b)
		n := 0
		for _, o := range l.Quarantine() {
			require.Equal(t, sink.Pending, o, "it was never sent")
			n++
		}
		require.Equal(t, 1, n)
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: 5, Pending: 5}}, l.Books())
	})
}

// TestLongOutageMerges leaves a sink down for a day: one record an hour is left,
// under an ID of its own, and no sum changes.
func TestLongOutageMerges(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, func(c *Config) {
			c.Routes = append(c.Routes, Route{Name: "up", DedupeWindow: sink.Forever, Timeout: time.Second})
		})
		f := feature(t, l, "calls", sink.Sum)
		peak := feature(t, l, "peak", sink.Max)
		const minutes = 24 * 60
		for i := range minutes {
			require.NoError(t, f.Add("acme", 1))
			if i%600 == 0 {
				require.NoError(t, peak.Set("acme", int64(i)))
			}
			time.Sleep(time.Minute)
			if i == 0 {
				time.Sleep(time.Second)
				synctest.Wait()
				attempt(t, l, sink.Pending) // refused: attempted records keep their ID
			}
			if i%60 == 0 {
				synctest.Wait()
				deliver(t, l, 1, sink.Delivered)
			}
		}
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.EqualValues(t, minutes, sum(records, "calls", "acme"))
		require.Less(t, len(records), 40)
		for _, r := range records {
			require.Equal(t, r.Start.Truncate(time.Hour), r.End.Add(-time.Second).Truncate(time.Hour), "a merge never leaves its hour")
		}
		up := deliver(t, l, 1, sink.Delivered)
		require.NotEmpty(t, up)
		for _, line := range l.Books() {
			require.Equal(t, line.Accepted, line.Delivered, "%+v", line)
			if line.Feature == "calls" {
				require.EqualValues(t, minutes, line.Accepted)
			}
		}
		total, _, _ := f.Total("acme")
		require.EqualValues(t, minutes, total)
	})
}

// TestLastGoesForward never sends an older level after a newer one.
func TestLastGoesForward(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely)
		seats := feature(t, l, "seats", sink.Last)
		require.NoError(t, seats.Set("acme", 5))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b, err := l.Take(0, 10, nil)
		require.NoError(t, err)
		require.Len(t, b.Records, 1)
		require.NoError(t, b.Resolve([]Result{{Outcome: sink.InDoubt, NotBefore: time.Now().Add(time.Hour)}}))
		require.NoError(t, seats.Set("acme", 7))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.EqualValues(t, 7, attempt(t, l, sink.Pending).Quantity)
		time.Sleep(2 * time.Hour)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 1)
		require.EqualValues(t, 7, records[0].Quantity)
		require.Equal(t, []Line{{Feature: "seats", Route: "main", Accepted: 12, Delivered: 7, Superseded: 5}}, l.Books())
	})
}

func TestMayResend(t *testing.T) {
	t.Parallel()
	day := &Route{DedupeWindow: 24 * time.Hour, Timeout: time.Minute}
	now := time.Unix(1_800_000_000, 0)
	at := func(ago time.Duration) uint32 { return uint32(now.Add(-ago).Unix()) }
	for name, c := range map[string]struct {
		route     *Route
		first     uint32
		highWater time.Time
		want      bool
	}{
		"fresh":                       {day, at(time.Second), now, true},
		"just inside":                 {day, at(23*time.Hour - 61*time.Second), now, true},
		"the attempt could end late":  {day, at(23*time.Hour - 60*time.Second), now, false},
		"long ago":                    {day, at(30 * time.Hour), now, false},
		"clock behind the attempt":    {day, at(-time.Second), now, false},
		"clock behind its high water": {day, at(time.Second), now.Add(3 * time.Minute), false},
		"clock a little behind":       {day, at(time.Second), now.Add(time.Minute), true},
		"unknown time":                {day, unknownTime, now, false},
		"never attempted":             {day, 0, now, false},
		"no dedupe":                   {&Route{}, at(time.Second), now, false},
		"window within the margin":    {&Route{DedupeWindow: time.Hour}, at(time.Second), now, false},
		"for ever":                    {&Route{DedupeWindow: sink.Forever}, unknownTime, now.Add(time.Hour), true},
	} {
		require.Equal(t, c.want, mayResend(c.route, c.first, now, c.highWater), name)
	}
}

// NextTry: a superseded record's time hides those that really wait.
func TestNextTryIsToCome(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "mapped", dir)
		f := feature(t, l, "seats", sink.Last)
		require.NoError(t, f.Set("acme", 5))
		require.NoError(t, f.Set("keeps the segment", 5))
		rotate(t, l)
		synctest.Wait()
		b, err := l.Take(0, 10, nil)
		require.NoError(t, err)
		require.NoError(t, b.Resolve([]Result{{Outcome: sink.Pending, NotBefore: time.Now().Add(time.Minute)}, {Outcome: sink.Pending, NotBefore: time.Now().Add(time.Hour)}}))
		require.NoError(t, f.Set("acme", 6))
		rotate(t, l)
		synctest.Wait()
		b, err = l.Take(0, 10, nil)
		require.NoError(t, err)
		require.NoError(t, b.Resolve([]Result{{Outcome: sink.Delivered}}))
		time.Sleep(2 * time.Minute)
		next := l.NextTry(0)
		require.True(t, next.After(time.Now()), "next try %v, now %v", next, time.Now())
	})
}
