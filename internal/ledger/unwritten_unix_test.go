//go:build unix

package ledger

import (
	"context"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// Real trouble, not injected: an hour's outage, windows of ten seconds, and fewer file
// descriptors than such windows. In each, one feature was tried and surely not applied.
func TestMergeWithFewFiles(t *testing.T) {
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: before.Max}))
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		window := func(c *Config) { c.Window = 10 * time.Second }
		l := open(t, "mapped", dir, window)
		f := feature(t, l, "calls", sink.Sum)
		n := int64(0)
		for range 360 {
			require.NoError(t, f.Add("acme", 1))
			require.NoError(t, feature(t, l, "other", sink.Sum).Add("acme", 1))
			n++
			time.Sleep(10 * time.Second)
			synctest.Wait()
			b, err := l.Take(0, 1, func(f sink.Feature) bool { return f.Name == "calls" })
			require.NoError(t, err)
			if b != nil {
				require.NoError(t, b.Resolve([]Result{{Outcome: sink.Pending, NotBefore: time.Now().Add(3 * time.Hour)}}))
			}
		}
		time.Sleep(75 * time.Minute)
		synctest.Wait()
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		billed := sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
		for range 20 { // and as often as the dispatcher would
			time.Sleep(time.Minute)
			synctest.Wait()
			billed += sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
		}
		require.NoError(t, l.Close(context.Background()))
		l = open(t, "mapped", dir, window)
		billed += sum(deliver(t, l, 0, sink.Delivered), "calls", "acme")
		require.EqualValues(t, n, billed)
		require.EqualValues(t, n, l.Books()[0].Accepted)
	})
}
