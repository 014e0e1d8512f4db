package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// mount mounts a filesystem for the test's duration; it skips, saying why, where
// that takes rights the test does not have.
func mount(t *testing.T, kind, options string, flags uintptr) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := unix.Mount(kind, dir, kind, flags, options)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
		t.Skipf("NOT TESTED: mounting %s: %v (run as root)", kind, err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// mountExt4 mounts a new ext4 of the given size and returns its image too, which
// is what a disk would hold.
func mountExt4(t *testing.T, size int64) (dir, image string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: a loop mount needs root")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skipf("NOT TESTED: %v", err)
	}
	image, dir = filepath.Join(t.TempDir(), "image"), t.TempDir()
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, size))
	out, err := exec.Command(mkfs, "-q", "-F", "-m", "0", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: loop mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", "-l", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return dir, image
}
