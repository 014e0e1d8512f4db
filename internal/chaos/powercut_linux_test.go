package chaos

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/inprocess/meter"
)

// volume is a filesystem in a file whose power can be cut.
type volume struct {
	t          *testing.T
	kind       string
	image, dir string
	options    string
}

// filesystems are what power cuts are tested on, with the options that have them write
// by themselves as late as they can: only what was synced is sure to be there.
var filesystems = map[string]struct{ mkfs, options string }{
	"ext4": {"mkfs.ext4 -q -F -m 0", "loop,commit=1000"},
	"xfs":  {"mkfs.xfs -q -f", "loop"},
}

func newVolume(t *testing.T, kind string) *volume {
	t.Helper()
	fs := filesystems[kind]
	make := strings.Fields(fs.mkfs)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: power cuts need a loop mount, and that needs root")
	}
	if _, err := exec.LookPath(make[0]); err != nil {
		t.Skipf("SKIPPED: power cuts on %s: %v", kind, err)
	}
	v := &volume{t: t, kind: kind, image: filepath.Join(t.TempDir(), "image"), dir: t.TempDir(), options: fs.options}
	require.NoError(t, os.WriteFile(v.image, nil, 0o600))
	require.NoError(t, os.Truncate(v.image, 1<<30))
	out, err := exec.Command(make[0], append(make[1:], v.image)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-t", kind, "-o", v.options, v.image, v.dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: power cuts on %s: it can't be mounted here: %v: %s", kind, err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", v.dir).Run() })
	return v
}

// cut ends all writing at once, without what the filesystem had still to write.
func (v *volume) cut() {
	v.t.Helper()
	const (
		shutdown = 0x8004587d // _IOR('X', 125, __u32)
		noFlush  = 2          // what its journal has not written either
	)
	f, err := os.Open(v.dir)
	require.NoError(v.t, err)
	defer f.Close()
	require.NoError(v.t, unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noFlush))
}

// restore is the machine's next start.
func (v *volume) restore() {
	v.t.Helper()
	for _, command := range [][]string{{"umount", v.dir}, {"mount", "-t", v.kind, "-o", v.options, v.image, v.dir}} {
		// What this process has mapped itself goes when the garbage collector finds it, and
		// one that is just being started elsewhere has all files of this one for a moment.
		var out []byte
		var err error
		for range 100 {
			if out, err = exec.Command(command[0], command[1:]...).CombinedOutput(); err == nil {
				break
			}
			runtime.GC()
			time.Sleep(50 * time.Millisecond)
		}
		require.NoError(v.t, err, "%v: %s", command, out)
	}
}

// interval is how often counts are synced that don't wait for it, and margin what a busy
// machine may take on top.
const (
	interval = 50 * time.Millisecond
	margin   = 2 * time.Second
)

// TestPowerCut cuts the power of the disk under a process that counts. What was
// acknowledged under SyncAlways is billed, once, and of what is synced every now and then
// all but the last.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for kind := range filesystems {
		for _, always := range []bool{true, false} {
			name, policy, share := kind+"/interval", interval, uint64(12)
			if always {
				name, policy, share = kind+"/always", meter.SyncAlways, 6
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := number(t, "METER_POWER_ROUNDS", rounds(t, 60)/share)
				v := newVolume(t, kind)
				w := newWorld(t, seed(t))
				w.ledger = filepath.Join(v.dir, "ledger")
				w.oracle.power, w.oracle.fragile, w.forgets = true, !always, always
				for i := range n {
					w.powerRound(v, rand.New(rand.NewPCG(w.seed, i)), policy)
					require.Empty(t, w.settle(), "seed %d, round %d", w.seed, i)
				}
				w.log()
			})
		}
	}
}

// TestPowerCutIsNoticed has acknowledged counts that nothing syncs: they must be missed.
func TestPowerCutIsNoticed(t *testing.T) {
	t.Parallel()
	v := newVolume(t, "ext4")
	w := newWorld(t, seed(t))
	w.ledger = filepath.Join(v.dir, "ledger")
	w.oracle.power = true
	for i := range uint64(20) {
		w.powerRound(v, rand.New(rand.NewPCG(w.seed, i)), meter.SyncNever)
		if has(w.settle(), "lost") {
			return
		}
	}
	require.Fail(t, "nothing was missed", "seed %d", w.seed)
}

// awaitBill waits until something more is billed, or for as long as that.
func (w *world) awaitBill(patience time.Duration) {
	path := filepath.Join(w.root, "usage.jsonl")
	size := func() int64 {
		if info, err := os.Stat(path); err == nil {
			return info.Size()
		}
		return 0
	}
	before := size()
	for end := time.Now().Add(patience); size() == before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (w *world) powerRound(v *volume, rng *rand.Rand, policy time.Duration) {
	w.t.Helper()
	o := w.order(rng)
	if o.Sync = policy; w.forgets {
		o.Fault = forgets
	}
	l := w.start(command(o))
	select {
	case <-l.said[ready].ch:
	case err := <-l.done: // it failed: bury says how
		l.done <- err
	}
	life := time.Duration(rng.Int64N(int64(400 * time.Millisecond)))
	if policy > 0 {
		life += margin
	}
	if w.forgets && rng.IntN(2) == 0 {
		w.awaitBill(2 * time.Second) // the answer is on its way
	} else {
		time.Sleep(life)
	}
	// It must not run on: what it hears of a sync that the cut meets half way may be wrong.
	pid := l.cmd.Process.Pid
	require.NoError(w.t, unix.Kill(pid, unix.SIGSTOP))
	require.NoError(w.t, unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil))
	at := time.Now()
	v.cut()
	_ = l.cmd.Process.Kill()
	w.bury(l)
	w.oracle.cut(at.Add(-interval - margin/2))
	v.restore()
}
