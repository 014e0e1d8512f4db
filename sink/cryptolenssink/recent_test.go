package cryptolenssink

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// What is remembered ends with the question, and is never more than so much.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var c recent
	at, other := place{license.NewKey("a"), "reports"}, place{license.NewKey("b"), "reports"}
	unknown := errors.New("no answer")
	for n := range maxDoubts + 100 {
		r := sink.Record{ID: fmt.Sprint(n)}
		c.note(r, at, unknown)
		require.True(t, c.knows(r, at), "the latest is never the one forgotten")
		require.False(t, c.knows(r, other))
	}
	require.Len(t, c.doubts, maxDoubts)

	for n, ended := range map[int]error{1: nil, 2: reject(sink.Record{}, "no"), 3: postpone(sink.Record{}, "later")} {
		r := sink.Record{ID: fmt.Sprint("x", n)}
		c.note(r, at, unknown)
		c.note(r, at, ended)
		require.Equal(t, n == 3, c.knows(r, at), "%v", ended)
	}
}

func TestRestsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c recent
		for n := range 100 {
			at := place{license.NewKey(fmt.Sprint(n)), "reports"}
			c.rest(at)
			require.Equal(t, settleTime, c.rests(at))
			time.Sleep(settleTime / 10)
		}
		require.Len(t, c.resting, 10, "only those that rest")
	})
}
