//go:build unix

package chaos

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
)

// TestSuspend stops processes for some windows, as a laptop's lid or a virtual machine
// that moves does, and kills them later. While it is stopped a process still owns its
// directory.
func TestSuspend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, seed(t))
	for i := range max(2, rounds(t, 40)/20) {
		rng := rand.New(rand.NewPCG(w.seed, i))
		o := w.order(rng)
		o.Restarts, o.Fault = false, outages
		l := w.start(command(o))
		<-l.said[ready].ch
		for range 2 {
			time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			require.NoError(t, l.cmd.Process.Signal(syscall.SIGSTOP))
			time.Sleep(time.Second + time.Duration(rng.Int64N(int64(1500*time.Millisecond))))
			cfg := o.config(0)
			cfg.LockWait, cfg.Sinks = meter.NoWait, nil
			_, err := meter.Open(cfg)
			require.ErrorIs(t, err, meter.ErrLocked)
			require.NoError(t, l.cmd.Process.Signal(syscall.SIGCONT))
		}
		time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
		_ = l.cmd.Process.Kill()
		require.True(t, w.bury(l))
	}
	require.Empty(t, w.settle(), "seed %d", w.seed)
	w.log()
}
