package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestReserveOnFullDisk(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return mount(t, "tmpfs", "size=64k", 0) },
		"ext4":  func(t *testing.T) string { dir, _ := mountExt4(t, 4<<20); return dir },
	}
	for name, newDir := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := create(t, newDir(t), "file")
			require.NoError(t, Reserve(f, 0, 16<<10))
			before := blocksOf(t, f)
			err := Reserve(f, 16<<10, 8<<20)
			require.ErrorIs(t, err, unix.ENOSPC)
			require.True(t, IsFull(err))
			require.ErrorContains(t, err, f.Name())
			require.EqualValues(t, 16<<10, sizeOf(t, f), "no size without blocks behind it")
			require.Equal(t, before, blocksOf(t, f), "nothing kept of what was not enough")
			require.NoError(t, Reserve(f, 16<<10, 16<<10), "what fits still fits")
		})
	}
}

func TestReserveFillsHoles(t *testing.T) {
	t.Parallel()
	f := create(t, mount(t, "tmpfs", "size=1m", 0), "file")
	require.NoError(t, f.Truncate(256<<10))
	require.Zero(t, blocksOf(t, f))
	require.NoError(t, Reserve(f, 0, 256<<10))
	require.EqualValues(t, 512, blocksOf(t, f))
}

func TestReserveUnsupported(t *testing.T) {
	t.Parallel()
	f := create(t, mount(t, "ramfs", "", 0), "file")
	err := Reserve(f, 0, 4096)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.False(t, IsFull(err))
	require.Zero(t, sizeOf(t, f))
}

func blocksOf(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	return st.Blocks
}

func TestMappable(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]struct {
		ok     bool
		reason string
	}{
		"tmpfs": {true, "tmpfs: "},
		"ramfs": {false, "ramfs: "},
		"proc":  {false, "filesystem type 0x9fa0: not known"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ok, reason := Mappable(mount(t, kind, "", 0))
			require.Equal(t, want.ok, ok)
			require.Contains(t, reason, want.reason)
		})
	}
	t.Run("ext4", func(t *testing.T) {
		t.Parallel()
		dir, _ := mountExt4(t, 4<<20)
		ok, reason := Mappable(dir)
		require.True(t, ok)
		require.Empty(t, reason)
	})
	t.Run("overlay", func(t *testing.T) {
		t.Parallel()
		layers := mount(t, "tmpfs", "", 0)
		for _, d := range []string{"lower", "upper", "work"} {
			require.NoError(t, os.Mkdir(filepath.Join(layers, d), 0o700))
		}
		options := "lowerdir=" + layers + "/lower,upperdir=" + layers + "/upper,workdir=" + layers + "/work"
		ok, reason := Mappable(mount(t, "overlay", options, 0))
		require.True(t, ok)
		require.Contains(t, reason, "overlayfs: ")
	})
	t.Run("missing", func(t *testing.T) {
		t.Parallel()
		ok, reason := Mappable(filepath.Join(t.TempDir(), "missing"))
		require.False(t, ok)
		require.Contains(t, reason, "no such file")
	})
}

// Filesystems that this test cannot mount, by the magic numbers of statfs(2).
func TestFilesystemsNotTrusted(t *testing.T) {
	t.Parallel()
	for magic, reason := range map[uint32]string{
		0x9123683e: "btrfs: copy-on-write",
		0xca451a4e: "bcachefs: copy-on-write",
		0x2fc12fc1: "zfs: copy-on-write",
		0x6969:     "nfs: network",
		0xff534d42: "cifs: network",
		0xfe534d42: "smb2: network",
		0x65735546: "fuse: ",
	} {
		fs, known := filesystems[magic]
		require.True(t, known, reason)
		require.False(t, fs.ok, reason)
		require.Contains(t, fs.reason, reason)
	}
}

// The image is what the disk holds: without a sync that covers mappings the
// bytes would still be in memory only.
func TestSyncCoversMappings(t *testing.T) {
	t.Parallel()
	dir, image := mountExt4(t, 8<<20)
	f := create(t, dir, "file")
	require.NoError(t, Reserve(f, 0, 64<<10))
	m, err := Map(f, 0, 64<<10)
	require.NoError(t, err)
	defer m.Unmap()
	pattern := []byte("counted in a mapping, made durable by fdatasync")
	copy(m.Bytes()[40_000:], pattern)
	require.NoError(t, m.Sync())
	require.NoError(t, Sync(f))
	raw, err := os.ReadFile(image)
	require.NoError(t, err)
	require.True(t, bytes.Contains(raw, pattern))
}

func TestSyncErrors(t *testing.T) {
	t.Parallel()
	f := create(t, t.TempDir(), "file")
	require.NoError(t, f.Close())
	require.ErrorIs(t, Sync(f), os.ErrClosed)

	proc, err := os.Open("/proc/self/stat")
	require.NoError(t, err)
	defer proc.Close()
	err = Sync(proc)
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "/proc/self/stat")
}

func TestSyncDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, SyncDir(dir))
	require.ErrorIs(t, SyncDir(filepath.Join(dir, "missing")), os.ErrNotExist)
	require.NoError(t, SyncDir("/proc/self"), "which has no such operation")
}

func TestMakeDirOnReadOnlyFilesystem(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "", unix.MS_RDONLY)
	err := MakeDir(dir)
	require.ErrorIs(t, err, unix.EROFS)
	require.ErrorContains(t, err, "directory "+dir+" is not writable")
	err = MakeDir(filepath.Join(dir, "sub"))
	require.ErrorIs(t, err, unix.EROFS)
	require.ErrorContains(t, err, "cannot be created")
}

func TestMakeDirOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := mount(t, "tmpfs", "nr_inodes=1", 0)
	require.NoError(t, MakeDir(dir), "counts already there must stay reachable")
	require.True(t, IsFull(MakeDir(filepath.Join(dir, "sub"))))
}

func TestOpenFileRefusesPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR} { // without O_NONBLOCK the first would hang
		_, err := OpenFile(path, flag)
		require.ErrorContains(t, err, "not a regular file")
	}
}

func TestIdentityHasBirth(t *testing.T) {
	t.Parallel()
	dir, _ := mountExt4(t, 4<<20)
	f := create(t, dir, "file")
	id, err := IdentityOf(f)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	require.Equal(t, st.Ino, id.Inode)
	require.Equal(t, st.Ctim.Nano(), id.Birth, "nothing happened to it since its creation")
}
