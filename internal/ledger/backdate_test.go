package ledger

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// used counts n as used at a time.
func (f *Feature) used(subject string, at time.Time, n int64) error {
	s, err := f.SeriesAt(subject, nil, at)
	if err != nil {
		return err
	}
	return s.Add(n)
}

// midMonth sleeps until there is a month before and a part of the running one.
func midMonth() time.Time {
	now := time.Now().UTC()
	time.Sleep(time.Date(2000, 2, 20, 12, 0, 30, 0, time.UTC).Sub(now))
	return time.Now()
}

func TestBackdatedUsageKeepsItsTime(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		now := midMonth()
		dir := t.TempDir()
		brief := func(c *Config) { c.EventWindow = time.Minute }
		l := open(t, mode, dir, minutely, brief)
		f := feature(t, l, "calls", sink.Sum)
		week, month := now.Add(-7*24*time.Hour), now.AddDate(0, -1, 0)
		region := map[string]string{"region": "eu"}
		require.NoError(t, f.Add("acme", 1))
		require.NoError(t, f.used("acme", week, 2))
		require.NoError(t, f.used("acme", week.Add(10*time.Second), 4))
		require.NoError(t, f.used("acme", week.Add(time.Minute), 8))
		require.NoError(t, f.used("acme", month, 16))
		s, err := f.SeriesAt("acme", region, week)
		require.NoError(t, err)
		require.NoError(t, s.Add(32))
		require.NoError(t, f.AddEvent("acme", nil, week, "", "row-1", 64))
		require.NoError(t, f.AddEvent("acme", nil, week, "", "row-1", 64))

		inMonth := func(f *Feature) int64 { n, _, _ := f.Total("acme"); return n }
		const want = 1 + 2 + 4 + 8 + 32 + 64 // without last month's
		require.EqualValues(t, want, inMonth(f))
		rotate(t, l)
		require.EqualValues(t, want, inMonth(f))

		minute := week.Truncate(time.Minute).UTC()
		type key struct {
			start  time.Time
			region string
		}
		got := make(map[key]int64)
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			if r.Backdated {
				require.Equal(t, time.Minute, r.End.Sub(r.Start))
				got[key{r.Start, r.Dimensions["region"]}] += r.Quantity
				continue
			}
			require.EqualValues(t, 1, r.Quantity)
			require.False(t, r.Start.Before(now.Truncate(time.Second)), r.Start)
		}
		require.Equal(t, map[key]int64{
			{minute, ""}:                            2 + 4 + 64,
			{minute.Add(time.Minute), ""}:           8,
			{month.Truncate(time.Minute).UTC(), ""}: 16,
			{minute, "eu"}:                          32,
		}, got)

		time.Sleep(10 * time.Minute)
		l.tidy()
		require.Empty(t, l.sealedNow())
		require.Zero(t, size(f.dimensioned), "series of times that are over")
		require.EqualValues(t, want, inMonth(f))
		if mode == "memory" {
			return
		}
		data, err := os.ReadFile(l.totals.file.Name())
		require.NoError(t, err)
		all, _ := (&totals{folded: make(map[uuid]bool), books: make(map[account]int64)}).decode(data)
		require.Len(t, all.usages, 3, "times are left out: two months, and one of them with a region, too")
		shut(t, l)
		l = open(t, mode, dir, minutely, brief)
		f = feature(t, l, "calls", sink.Sum)
		require.EqualValues(t, want, inMonth(f), "after a restart, when it is folded")
	})
}

func TestBackdatedUsageSurvivesDeath(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		now := midMonth()
		l := open(t, mode, dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.used("acme", now.Add(-time.Hour), 5))
		require.NoError(t, l.active.Load().journal.sync())
		abandon(l)
		l = open(t, mode, dir, minutely)
		f = feature(t, l, "calls", sink.Sum)
		total, _, _ := f.Total("acme")
		require.EqualValues(t, 5, total)
		require.Len(t, l.sealedNow(), 1)
		require.True(t, l.sealedNow()[0].head.dated)
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 1)
		require.True(t, records[0].Backdated)
		require.Equal(t, now.Add(-time.Hour).Truncate(time.Minute).Unix(), records[0].Start.Unix())
	})
}

func TestEventTimesOutOfRange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := midMonth()
		l := open(t, "memory", "", minutely, func(c *Config) {
			c.Routes[0].MaxAge = 35 * 24 * time.Hour
		})
		f := feature(t, l, "calls", sink.Sum)
		for _, at := range []time.Time{now.Add(MaxAhead + time.Second), now.Add(-35 * 24 * time.Hour), time.Unix(-1, 0), time.Unix(1<<60, 0)} {
			require.ErrorIs(t, f.used("acme", at, 1), ErrTime, at)
			require.ErrorIs(t, f.AddEvent("acme", nil, at, "", "a", 1), ErrTime, at)
		}
		require.ErrorContains(t, f.used("acme", now.AddDate(-1, 0, 0), 1), `route "main" takes what is at most 840h0m0s old`)
		require.NoError(t, f.used("acme", now.Add(MaxAhead), 1), "is of now")
		require.NoError(t, f.used("acme", now.Add(-35*24*time.Hour+2*time.Minute), 1))
		require.NoError(t, f.AddEvent("acme", nil, now, "", "a", 1), "what was refused is not remembered")
		require.NoError(t, f.AddEvent("acme", nil, now.AddDate(-1, 0, 0), "", "a", 1), "what was counted is, whatever its time")
		rotate(t, l)
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			require.False(t, r.Start.After(now))
		}
	})
}

// TestBackdatedRecordsOfATime finds them where they were used, though their segments are
// younger.
func TestBackdatedRecordsOfATime(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		midMonth()
		time.Sleep(30 * time.Second)
		began := time.Now()
		l := open(t, mode, dir, minutely, retaining)
		f := feature(t, l, "calls", sink.Sum)
		for range 3 {
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Minute + time.Second)
		}
		require.NoError(t, f.used("acme", began, 16))
		time.Sleep(time.Minute)
		synctest.Wait()
		count := func() (n int64) {
			records, err := l.Records("main", began, began.Add(time.Minute))
			require.NoError(t, err)
			for r := range records {
				n += r.Quantity
			}
			return n
		}
		deliver(t, l, 0, sink.Pending)
		before := count()
		require.EqualValues(t, 17, before)
		deliver(t, l, 0, sink.Delivered)
		l.tidy()
		require.Equal(t, before, count())
	})
}

// TestDoubtIsNotAloneWithBackdatedUsage has nobody conclude from a biller's total of a
// minute whether a record of it was recorded.
func TestDoubtIsNotAloneWithBackdatedUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := midMonth()
		l := open(t, "memory", "", minutely, func(c *Config) { c.Routes[0].DedupeWindow, c.Routes[0].Verifies = 0, true })
		f := feature(t, l, "calls", sink.Sum)
		for _, subject := range []string{"alone", "late"} {
			require.NoError(t, f.Add(subject, 3))
		}
		time.Sleep(2 * time.Minute)
		require.NoError(t, f.used("late", now, 3))
		rotate(t, l)
		b, err := l.Take(0, 100, nil)
		require.NoError(t, err)
		results := make([]Result, len(b.Records))
		for i, r := range b.Records {
			results[i].Outcome = sink.Delivered
			if !r.Backdated {
				results[i].Outcome = sink.InDoubt
			}
		}
		require.NoError(t, b.Resolve(results))
		deliver(t, l, 0, sink.Delivered) // what waited for another of its subject
		l.tidy()
		doubts := l.Doubts(0)
		require.NotEmpty(t, doubts)
		for _, d := range doubts {
			require.Equal(t, d.Subject == "alone", d.Alone, "%+v", d)
		}
	})
}

// TestBackdatedUsageGetsTooOld has it wait for a person, as any that is too old.
func TestBackdatedUsageGetsTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := midMonth()
		l := open(t, "memory", "", minutely, func(c *Config) { c.Routes[0].MaxAge = 35 * 24 * time.Hour })
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		require.NoError(t, f.used("acme", now.AddDate(0, 0, -34), 2))
		rotate(t, l)
		time.Sleep(36 * time.Hour)
		require.EqualValues(t, 1, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
		held := 0
		for r, outcome := range l.Quarantine() {
			require.Equal(t, sink.Pending, outcome)
			require.EqualValues(t, 2, r.Quantity)
			held++
		}
		require.Equal(t, 1, held)
	})
}

func TestManyTimesTakeNoMemoryForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := midMonth()
		l := open(t, "memory", "", minutely)
		f := feature(t, l, "calls", sink.Sum)
		for i := range 1000 {
			require.NoError(t, f.used(fmt.Sprint(i%10), now.Add(-time.Duration(i+1)*time.Minute), 1))
		}
		require.Equal(t, 1000, size(f.dimensioned))
		rotate(t, l)
		l.tidy()
		require.Zero(t, size(f.dimensioned))
		for i := range 10 {
			plain := f.plain.find(fmt.Sprint(i))
			require.Nil(t, plain.next.Load())
			total, _, _ := f.Total(fmt.Sprint(i))
			require.EqualValues(t, 100, total)
		}
	})
}

func FuzzBackdatedKeys(f *testing.F) {
	f.Add([]byte{1, 'f', 1, 's', 0, 2, 2, 2})
	f.Add(appendBackdated(nil, "calls", "acme", map[string]string{"region": "eu"}, interval{1_000_000_020, 1_000_000_080}))
	f.Add(appendKey(nil, "calls", "acme", map[string]string{"region": "eu"}))
	f.Fuzz(func(t *testing.T, key []byte) {
		used, ok := usedIn(key)
		feature, subject, dimensions, err := decodeKey(key)
		if ok {
			require.NotContains(t, dimensions, "")
		}
		if !ok || err != nil {
			return
		}
		require.Less(t, used.start, used.end)
		again := appendBackdated(nil, feature, subject, dimensions, used)
		back, ok := usedIn(again)
		require.True(t, ok)
		require.Equal(t, used, back)
		_, dated := usedIn(undated(key))
		require.False(t, dated)
	})
}
