package cache

import (
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// Hits go by ticks, and still every limit is kept to the nanosecond.
func TestLimitsAreExactWhileTheClockTicks(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		until time.Duration // 0: none
		ends  time.Duration
	}{
		"grace":            {0, time.Minute},
		"until in grace":   {40*time.Second + 1, 40*time.Second + 1},
		"until when fresh": {5*time.Second + 1, 5*time.Second + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{Fresh: 10 * time.Second, Grace: time.Minute}, func(w world) {
				v := allow("cus_1")
				start := time.Now()
				if test.until > 0 {
					v.Until = start.Add(test.until)
				}
				w.server.set(v, nil)
				w.allowed("k")
				w.server.set(license.Verdict{}, errDown)
				for time.Since(start) < test.ends-tick/2 {
					w.allowed("k")
					w.settle()
					if stale := time.Since(start) - 10*time.Second; stale < 0 {
						w.asked(1)
					} else {
						require.LessOrEqual(w, w.server.asked(), 2+int(stale/retryPause))
						require.GreaterOrEqual(w, w.server.asked(), 2+int(stale/(retryPause+2*tick)))
					}
					require.NotNil(w, w.clock.recent.Load(), "it ticks")
					time.Sleep(tick / 2)
				}
				time.Sleep(test.ends - time.Since(start) - 1)
				w.allowed("k")
				time.Sleep(1)
				w.unknown("k")
			})
		})
	}
}

func TestTheClockTicksOnlyWhileItIsUsed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		require.Nil(w, w.clock.recent.Load(), "a miss is not worth it")
		for range 100 {
			w.allowed("k")
			time.Sleep(tick / 2)
			w.settle()
			require.Less(w, w.clock.now().since(*w.clock.recent.Load()), tick)
		}
		time.Sleep(2 * tick)
		w.settle()
		require.Nil(w, w.clock.recent.Load())
		w.allowed("k")
		require.NotNil(w, w.clock.recent.Load())
	})
}

func TestSurelyFresh(t *testing.T) {
	t.Parallel()
	cfg := Config{Fresh: time.Minute}
	const early, late = 59*time.Second - 1, 59 * time.Second // a second less than Fresh
	at := instant{mono: time.Hour, wall: int64(50 * 365 * 24 * time.Hour)}
	for name, test := range map[string]struct {
		mono, wall time.Duration // that passed by the last tick
		restored   bool
		until      time.Duration
		want       bool
	}{
		"both":              {mono: early, wall: early, want: true},
		"late by one":       {mono: late, wall: early},
		"late by the other": {mono: early, wall: late},
		"clock set back":    {mono: early, wall: -time.Hour, want: true},
		"suspended":         {mono: 0, wall: time.Hour},
		"restored":          {restored: true},
		"before until":      {mono: 8 * time.Second, wall: 8 * time.Second, until: 10 * time.Second, want: true},
		"near until":        {mono: 9 * time.Second, wall: 9 * time.Second, until: 10 * time.Second},
	} {
		e := &entry{at: at, restored: test.restored}
		if test.until > 0 {
			e.verdict.Until = time.Unix(0, at.wall).Add(test.until)
		}
		glance := &instant{at.mono + test.mono, at.wall + int64(test.wall)}
		require.Equal(t, test.want, newEntry(e, &cfg).surelyFresh(glance), name)
	}
	forever := newEntry(&entry{at: at}, &Config{Fresh: 1<<63 - 1})
	require.True(t, forever.surelyFresh(&at), "no overflow")
}
