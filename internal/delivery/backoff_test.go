package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPausesDoubleUpToTheirLimit(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{
		1: firstPause, 2: 2 * firstPause, 3: 4 * firstPause, 10: 256 * time.Second, 11: longestWait, 1 << 40: longestWait,
	} {
		least, most := time.Hour, time.Duration(0)
		for range 2000 {
			d := routePause(failures)
			least, most = min(least, d), max(most, d)
		}
		require.GreaterOrEqual(t, least, want/2)
		require.LessOrEqual(t, most, want)
		require.Less(t, least, want*6/10, "no jitter below")
		require.Greater(t, most, want*9/10, "no jitter above")
	}
	require.LessOrEqual(t, recordPause(1), firstDefer)
	require.LessOrEqual(t, recordPause(1000), longestAway)
	require.GreaterOrEqual(t, recordPause(1000), longestAway/2)
	require.LessOrEqual(t, recordPause(0), firstDefer, "an attempt is at least the first")
}
