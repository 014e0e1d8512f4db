package ledger

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestWindowsEndAtTheMostBlocks counts more series, and more events, than a segment
// may hold: what recovery would not take never gets into one.
func TestWindowsEndAtTheMostBlocks(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		for _, most := range []uint32{8, 9, 64} {
			t.Run(fmt.Sprint(mode, "/", most), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					small := func(c *Config) { c.mostBlocks, c.Sync = most, SyncAlways }
					l := open(t, mode, dir, small)
					f := feature(t, l, "calls", sink.Sum)
					const n = 100
					for i := range n {
						require.NoError(t, f.Add(fmt.Sprint("s", i), 1))
						require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
					}
					for _, sd := range l.sealedNow() {
						require.LessOrEqual(t, sd.head.blocks, most)
					}
					require.Greater(t, len(l.sealedNow()), 3)
					if mode != "memory" {
						abandon(l)
						l = open(t, mode, dir, small)
						f = feature(t, l, "calls", sink.Sum)
					}
					for i := range n {
						require.EqualValues(t, 1, totalOf(f, fmt.Sprint("s", i)))
						require.NoError(t, f.event("acme", fmt.Sprint(i), 1))
					}
					require.EqualValues(t, n, totalOf(f, "acme"))
					rotate(t, l)
					require.EqualValues(t, 2*n, sum1(deliver(t, l, 0, sink.Delivered)))
					require.NoError(t, l.Health())
				})
			})
		}
	}
}
