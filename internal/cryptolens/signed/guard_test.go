package signed

import (
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func signedAt(key string, at time.Time) *License {
	return &License{Key: license.NewKey(key), SignDate: at}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type step struct {
		key    string
		signed time.Duration // after noon
		asked  time.Duration
		want   error
	}
	for name, steps := range map[string][]step{
		"newer and equal ones": {{"a", 0, 0, nil}, {"a", 0, time.Second, nil}, {"a", time.Second, time.Second, nil}},
		"older one":            {{"a", 0, 0, nil}, {"a", -time.Second, time.Second, ErrReplayed}, {"b", -time.Second, time.Second, nil}},
		"as old as allowed":    {{"a", 0, 24*time.Hour - 1, nil}},
		"too old":              {{"a", 0, 24 * time.Hour, ErrTooOld}},
		"one second ahead":     {{"a", time.Second, 0, nil}},
		"an hour ahead":        {{"a", ClockSkew, 0, nil}},
		"more ahead":           {{"a", ClockSkew + 1, 0, ErrClock}, {"a", 0, 0, nil}},
		// b proves that a was signed a day ago, whatever the clock says.
		"clock set back": {{"b", 0, 0, nil}, {"a", -24 * time.Hour, -30 * time.Minute, ErrTooOld}},
		// What was refused is not remembered.
		"too new, then real": {{"a", 24 * time.Hour, 0, ErrClock}, {"a", 0, 0, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewGuard(24 * time.Hour)
			for i, s := range steps {
				l := signedAt(s.key, noon.Add(s.signed))
				err := g.Admit(l, g.Newest(l.Key), noon.Add(s.asked))
				require.ErrorIs(t, err, s.want, i)
			}
		})
	}
}

// Two questions under way at once may be answered in any order.
func TestAnswersMayOvertakeEachOther(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := NewGuard(0)
	key := license.NewKey("a")
	first, second := g.Newest(key), g.Newest(key)
	require.NoError(t, g.Admit(signedAt("a", now), second, now))
	require.NoError(t, g.Admit(signedAt("a", now.Add(-time.Second)), first, now))
	require.Equal(t, now, g.Newest(key))
	require.ErrorIs(t, g.Admit(signedAt("a", now.Add(-time.Second)), g.Newest(key), now), ErrReplayed)
}

func TestGuardWithoutMaxAge(t *testing.T) {
	t.Parallel()
	g := NewGuard(0)
	l := signedAt("a", time.Unix(1, 0))
	require.NoError(t, g.Admit(l, time.Time{}, time.Now()))
	require.NoError(t, g.StillGood(l, time.Now()))
	require.Zero(t, g.End(l))
	g.Remember(l.Key, time.Unix(2, 0))
	require.ErrorIs(t, g.Admit(l, g.Newest(l.Key), time.Now()), ErrReplayed)
	require.Equal(t, time.Unix(2, 0), g.Now(time.Unix(1, 0)))
	require.Equal(t, time.Unix(3, 0), g.Now(time.Unix(3, 0)))
}

func TestStillGood(t *testing.T) {
	t.Parallel()
	g := NewGuard(time.Hour)
	now := time.Now()
	l := signedAt("a", now)
	require.NoError(t, g.Admit(l, time.Time{}, now))
	require.NoError(t, g.StillGood(l, now.Add(time.Hour-1)))
	require.ErrorIs(t, g.StillGood(l, now.Add(time.Hour)), ErrTooOld)
	require.Equal(t, now.Add(time.Hour), g.End(l))
}
