package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// An adopted directory's use counts in the period that runs here, once, whatever that
// directory knew of it; the bounds that run here stay.
func TestAdoptionLeavesThePeriodThatRuns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		theirs  Quota
		folded  bool
		counted int64
	}{
		"same":        {Quota{Limit: 100, Start: date(1, 1), End: date(3, 1)}, true, 7 + 10 + 5},
		"same, base":  {Quota{Limit: 100, Start: date(1, 1), End: date(3, 1)}, false, 7 + 10 + 5},
		"over":        {Quota{Limit: 100, Start: date(1, 1), End: date(1, 20)}, true, 7},
		"overlapping": {Quota{Limit: 100, Start: date(1, 10), End: date(2, 10)}, true, 7 + 5},
		"upgrade":     {Quota{Limit: 100, Start: date(1, 14), End: date(2, 14)}, true, 7 + 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDirMode(t, func(t *testing.T, mode, parent string) {
				l := open(t, mode, parent+"/own")
				f := feature(t, l, "calls", sink.Sum)
				sleepUntil(t, l, date(1, 12))
				q := Quota{Limit: 100, Start: date(1, 1), End: date(3, 1)}
				require.Equal(t, 7, admitted(t, f, "s", fixed(q), 7))
				require.NoError(t, l.Close(t.Context()))

				sleepUntilAlone(date(1, 13))
				orphan := open(t, mode, parent+"/theirs")
				f = feature(t, orphan, "calls", sink.Sum)
				require.NoError(t, f.Add("s", 10))
				rotate(t, orphan)
				if test.folded {
					foldAway(t, orphan)
				}
				sleepUntil(t, orphan, date(1, 15))
				require.True(t, call(t, f, "s", test.theirs, 1, 5))
				rotate(t, orphan)
				if test.folded {
					foldAway(t, orphan)
				}
				require.NoError(t, orphan.Close(t.Context()))

				sleepUntilAlone(date(1, 25))
				for range 3 {
					l = open(t, mode, parent+"/own", func(c *Config) { c.Adopt = parent + "/*" })
					synctest.Wait()
					require.NoError(t, l.Health())
					s := feature(t, l, "calls", sink.Sum).Tally("s").Standing()
					require.Equal(t, []int64{q.Start, q.End}, []int64{s.Start, s.End})
					require.Equal(t, test.counted, s.Counted)
					require.NoError(t, l.Close(t.Context()))
				}
			})
		})
	}
}

func sleepUntilAlone(second int64) { time.Sleep(time.Until(time.Unix(second, 0))) }

// An adopted directory's use counts in the period that it knew, folded away or not,
// here and after another restart.
func TestPeriodsAreAdopted(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent := t.TempDir()
				q := Quota{Limit: 1000, Start: time.Now().Unix(), End: time.Now().Add(1000 * time.Hour).Unix()}
				orphan := open(t, mode, parent+"/a")
				f := feature(t, orphan, "calls", sink.Sum)
				require.True(t, call(t, f, "s", q, 1, 10))
				require.NoError(t, orphan.Rotate(t.Context()))
				foldAway(t, orphan)
				require.True(t, call(t, f, "s", q, 1, 5))
				require.NoError(t, orphan.Close(t.Context()))
				for range 2 {
					l := open(t, mode, parent+"/b", func(c *Config) { c.Adopt = parent + "/*" })
					synctest.Wait()
					tally := feature(t, l, "calls", sink.Sum).Tally("s")
					require.NotNil(t, tally)
					s := tally.Standing()
					require.Equal(t, []int64{15, q.Start, q.End}, []int64{s.Counted, s.Start, s.End})
					total, _, _ := tally.feature.Total("s")
					require.EqualValues(t, 15, total)
					require.NoError(t, l.Close(t.Context()))
				}
			})
		})
	}
}
