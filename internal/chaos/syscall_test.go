//go:build linux

package chaos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
)

// changing are the system calls by which a directory and its files change.
var changing = []string{
	"openat", "pwrite64", "write", "fallocate", "ftruncate", "fdatasync", "fsync",
	"mmap", "renameat", "unlinkat", "utimensat", "flock",
}

// TestKillAtSystemCalls kills a short life right before its first, second, … call
// of each kind, and sometimes the next one while it recovers. All of it must be
// billed once. strace counts the calls of each thread by itself, so that the same
// number may be met in several places, and which is chance.
func TestKillAtSystemCalls(t *testing.T) {
	t.Parallel()
	strace := traceable(t)
	every := os.Getenv("METER_KILL_SYSCALLS") == "all"
	budget := 6 * time.Second
	if testing.Short() {
		budget = time.Second
	}
	first := seed(t)
	for i, call := range changing {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, first+uint64(i))
			when, end := 0, time.Now().Add(budget)
			for n := uint64(0); every || n == 0 || time.Now().Before(end); n++ {
				rng := rand.New(rand.NewPCG(w.seed, n))
				when++
				if !every && n > 0 {
					when += rng.IntN(3)
				}
				if !w.killAt(strace, call, when, w.script(rng, false)) && !w.killAt(strace, call, when, w.script(rng, true)) {
					require.Empty(t, w.settle(), "seed %d", w.seed)
					if when > 3 || every {
						break // there are fewer such calls
					}
					when = 0
					continue
				}
				if rng.IntN(2) == 0 {
					w.killAt(strace, call, 1+rng.IntN(when), w.script(rng, false))
				}
				require.Empty(t, w.settle(), "seed %d: killed at %s number %d", w.seed, call, when)
			}
			require.Positive(t, w.kills)
			t.Logf("%d lives ended before a call of %s, up to a thread's number %d", w.kills, call, when)
			w.log()
		})
	}
}

// TestFailingSystemCalls has the first, second, … call of each kind fail in a short
// life that ends in peace, if it can begin. What it acknowledged is billed once. mmap is
// not among them, for the program itself would not start.
func TestFailingSystemCalls(t *testing.T) {
	t.Parallel()
	strace := traceable(t)
	every := os.Getenv("METER_KILL_SYSCALLS") == "all"
	budget := 1500 * time.Millisecond
	if testing.Short() {
		budget = time.Second
	}
	first := seed(t)
	for i, call := range []string{"openat", "pwrite64", "fallocate", "ftruncate", "fdatasync", "fsync", "renameat", "unlinkat", "utimensat", "flock"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, first+uint64(i))
			w.faulty = true
			end := time.Now().Add(budget)
			when, failed := 1, 0
			for n := uint64(0); every || n == 0 || time.Now().Before(end); n++ {
				rng := rand.New(rand.NewPCG(w.seed, n))
				o := w.script(rng, n%2 == 0)
				o.Faulty = true
				fault := []string{"EIO", "ENOSPC"}[rng.IntN(2)]
				if !w.failAt(strace, call, fault, when, o) {
					if every {
						break
					}
					when = 0
				} else {
					failed++
				}
				require.Empty(t, w.settle(), "seed %d: %s at %s number %d", w.seed, fault, call, when)
				if when++; !every {
					when += rng.IntN(2)
				}
			}
			require.Positive(t, failed)
			t.Logf("%d calls of %s failed", failed, call)
			w.log()
		})
	}
}

// script orders a short life. One that is thorough makes all the calls there are.
func (w *world) script(rng *rand.Rand, thorough bool) order {
	o := w.order(rng)
	o.Script, o.Linger = true, thorough || rng.IntN(4) == 0
	o.Sync = []time.Duration{meter.SyncAlways, meter.SyncNever}[rng.IntN(2)]
	if thorough {
		o.Sync, o.Retain = meter.SyncAlways, time.Minute
	}
	return o
}

// traceable finds strace, and skips where it can't trace.
func traceable(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED: kills at system calls need strace, which is not installed")
	}
	if out, err := exec.Command(path, "-f", "-e", "trace=none", os.Args[0], "-test.run=^$").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: strace can't trace here: %v: %s", err, out)
	}
	return path
}

// killAt runs a child until one of its threads makes a call for the when-th time.
// It returns false if none did.
func (w *world) killAt(strace, call string, when int, o order) (killed bool) {
	w.t.Helper()
	cmd := command(o, strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, when))
	// Few threads, so that what is counted per thread is nearly what is counted in all.
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	return w.bury(w.start(cmd))
}

// failAt runs a child one of whose threads' when-th call of a kind fails. It returns
// false if none did.
func (w *world) failAt(strace, call, fault string, when int, o order) (failed bool) {
	w.t.Helper()
	trace := filepath.Join(w.root, "trace")
	cmd := command(o, strace, "-f", "-qq", "-o", trace, "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, fault, when))
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	w.bury(w.start(cmd))
	text, err := os.ReadFile(trace)
	require.NoError(w.t, err)
	return bytes.Contains(text, []byte("(INJECTED)"))
}
