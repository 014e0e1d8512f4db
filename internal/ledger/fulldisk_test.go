package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// mountTmpfs mounts a filesystem in memory; it skips, saying why, where that
// takes rights that the test does not have.
func mountTmpfs(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: mounting a tmpfs (run as root on Linux): %v: %s", err, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", "-l", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return dir
}

// fill takes all the room that a filesystem has.
func fill(t *testing.T, path string) {
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for chunk := make([]byte, 4096); ; {
		if _, err := f.Write(chunk); err != nil {
			return
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		for _, refuse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/refuse=%v", mode, refuse), func(t *testing.T) {
				t.Parallel()
				disk := mountTmpfs(t, "size=6m")
				synctest.Test(t, func(t *testing.T) { liveOnFullDisk(t, mode, disk, refuse) })
			})
		}
	}
}

func liveOnFullDisk(t *testing.T, mode, disk string, refuse bool) {
	dir, filler := filepath.Join(disk, "ledger"), filepath.Join(disk, "filler")
	change := func(c *Config) { c.RefuseWhenFull = refuse }
	l := open(t, mode, dir, change)
	f := feature(t, l, "calls", sink.Sum)
	accepted, refused := int64(0), 0
	count := func() {
		for i := range 20 {
			err := f.Add(fmt.Sprint("s", i), 3)
			if refuse && errors.Is(err, ErrFull) {
				refused++
				continue
			}
			require.NoError(t, err)
			accepted += 3
		}
		balance(t, l, accepted)
	}
	count()
	for i := range 6 { // again and again, for sealing a segment makes room
		fill(t, fmt.Sprint(filler, i))
		_ = l.Rotate(context.Background())
		synctest.Wait()
		fill(t, fmt.Sprint(filler, i, "more"))
		count()
	}
	require.Error(t, l.Health())
	if refuse {
		require.ErrorContains(t, l.Health(), "refusing to count")
		require.Positive(t, refused)
	} else {
		require.ErrorContains(t, l.Health(), "memory")
	}
	fillers, err := filepath.Glob(filler + "*")
	require.NoError(t, err)
	for _, path := range fillers {
		require.NoError(t, os.Remove(path))
	}
	time.Sleep(3 * time.Hour)
	synctest.Wait()
	count()
	require.NoError(t, l.Rotate(context.Background()))
	require.NoError(t, l.Health(), "room has returned")
	before := refused
	count()
	require.Equal(t, before, refused)
	require.NoError(t, l.active.Load().journal.sync())
	abandon(l)

	l = open(t, mode, dir, change)
	balance(t, l, accepted)
	deliver(t, l, 0, sink.Delivered)
	for _, line := range l.Books() {
		require.Equal(t, accepted, line.Delivered)
	}
	require.NoError(t, l.Health())
}

func TestMaxDisk(t *testing.T) {
	t.Parallel()
	for _, refuse := range []bool{false, true} {
		t.Run(fmt.Sprintf("refuse=%v", refuse), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, "mapped", dir, func(c *Config) { c.MaxDisk, c.RefuseWhenFull = 3*(firstExtent+headSize), refuse })
				synctest.Wait()
				f := feature(t, l, "calls", sink.Sum)
				var accepted int64
				full := false
				for i := range 3 * firstExtent / blockSize {
					switch err := f.Add(fmt.Sprintf("subject-%d", i), 1); {
					case err == nil:
						accepted++
					case refuse && errors.Is(err, ErrFull):
						full = true
					default:
						require.NoError(t, err)
					}
					if i%700 == 699 {
						_ = l.Rotate(context.Background())
					}
				}
				require.Equal(t, refuse, full)
				require.Error(t, l.Health())
				balance(t, l, accepted)
				_ = l.Rotate(context.Background())
				require.Len(t, deliver(t, l, 0, sink.Delivered), int(accepted))
				require.NoError(t, l.foldSettled())
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				require.NoError(t, f.Add("later", 1), "what was delivered made room")
				require.NoError(t, l.Rotate(context.Background()))
				require.NoError(t, l.foldSettled())
				require.NoError(t, l.Health())
				balance(t, l, accepted+1)
			})
		})
	}
}
