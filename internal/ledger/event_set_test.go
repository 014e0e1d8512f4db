package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestEventsAgainstASet delivers at random, forgets at random, dies at random; a set
// knows what must have been counted.
func TestEventsAgainstASet(t *testing.T) {
	t.Parallel()
	programs := 12
	if testing.Short() {
		programs = 4
	}
	for seed := range programs {
		for _, mode := range modes[1:] {
			t.Run(fmt.Sprint(mode, "/", seed), func(t *testing.T) {
				t.Parallel()
				dir := quickDir(t)
				synctest.Test(t, func(t *testing.T) { againstASet(t, mode, dir, uint64(seed)) })
			})
		}
	}
}

func againstASet(t *testing.T, mode, dir string, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	const window = time.Hour
	type known struct {
		quantity int64
		at       time.Time
	}
	seen := make(map[string]known)
	var want, billed, counted int64
	var l *Ledger
	var f *Feature
	reopen := func() {
		l = open(t, mode, dir, func(c *Config) { c.Sync, c.EventWindow = SyncAlways, window })
		f = feature(t, l, "report", sink.Sum)
	}
	reopen()
	for range 600 {
		switch rng.IntN(12) {
		default:
			id, n := fmt.Sprint(rng.IntN(60)), 1+rng.Int64N(3)
			err := f.event("acme", id, n)
			before, ok := seen[id]
			again := billed+openUnits(l) == want
			switch {
			case !ok || !again:
				require.NoError(t, err)
				require.False(t, again, "%s was never counted", id)
				require.True(t, !ok || time.Since(before.at) > window, "%s counted again after %v", id, time.Since(before.at))
				seen[id], want = known{n, time.Now()}, want+n
				counted++
			case before.quantity == n:
				require.NoError(t, err)
			default:
				require.ErrorIs(t, err, ErrConflict)
			}
		case 0:
			n := rng.Int64N(5)
			require.NoError(t, f.Add("acme", n))
			want += n
		case 1:
			rotate(t, l)
		case 2:
			billed += sum(deliver(t, l, 0, sink.Delivered), "report", "acme")
			l.tidy()
		case 3:
			time.Sleep(time.Duration(rng.IntN(1200)) * time.Second)
		case 4:
			require.NoError(t, l.Close(context.Background()))
			reopen()
		case 5:
			abandon(l)
			reopen()
		}
		require.Equal(t, want, billed+openUnits(l))
	}
	rotate(t, l)
	billed += sum(deliver(t, l, 0, sink.Delivered), "report", "acme")
	require.Equal(t, want, billed)
	require.Greater(t, counted, int64(80), "IDs are forgotten, and count again")
	require.NoError(t, l.Health())
}

func openUnits(l *Ledger) (n int64) {
	for _, line := range l.Books() {
		n += line.Pending
	}
	return n
}
