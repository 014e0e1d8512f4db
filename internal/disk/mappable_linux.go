package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A filesystem may hold mapped counters only if it is named here with ok: one
// nobody has thought about must not be trusted with counts.
type filesystem struct {
	ok     bool
	reason string
}

const (
	copies  = "copy-on-write, so a reserved block is not the one written later"
	network = "network, so other machines and outages get at mapped memory"
)

// Magic numbers that golang.org/x/sys/unix does not have: statfs(2).
const (
	magicGFS2     = 0x01161970
	magicLustre   = 0x0bd00bd0
	magicMSDOS    = 0x4d44
	magicExFAT    = 0x2011bab0
	magicNTFS3    = 0x7366746e
	magicOCFS2    = 0x7461636f
	magicSMB      = 0x517b
	magicSquashfs = 0x73717368
	magicZFS      = 0x2fc12fc1
)

var filesystems = map[uint32]filesystem{
	unix.EXT4_SUPER_MAGIC: {ok: true}, // ext2 and ext3 too; their fallocate fails where it cannot
	unix.XFS_SUPER_MAGIC:  {ok: true},

	unix.TMPFS_MAGIC:           {true, "tmpfs: memory, so counts survive the process but neither a reboot nor a power loss"},
	unix.OVERLAYFS_SUPER_MAGIC: {true, "overlayfs: a container's own layer, so counts go when the container is removed, and a copy-on-write filesystem beneath it is not seen; mount a volume"},

	unix.BTRFS_SUPER_MAGIC:    {false, "btrfs: " + copies},
	unix.BCACHEFS_SUPER_MAGIC: {false, "bcachefs: " + copies},
	unix.F2FS_SUPER_MAGIC:     {false, "f2fs: " + copies},
	magicZFS:                  {false, "zfs: " + copies},

	unix.NFS_SUPER_MAGIC:  {false, "nfs: " + network},
	unix.CIFS_SUPER_MAGIC: {false, "cifs: " + network},
	unix.SMB2_SUPER_MAGIC: {false, "smb2: " + network},
	magicSMB:              {false, "smb: " + network},
	unix.CEPH_SUPER_MAGIC: {false, "ceph: " + network},
	unix.AFS_SUPER_MAGIC:  {false, "afs: " + network},
	unix.V9FS_MAGIC:       {false, "9p: " + network},
	magicLustre:           {false, "lustre: " + network},
	magicGFS2:             {false, "gfs2: " + network},
	magicOCFS2:            {false, "ocfs2: " + network},

	unix.FUSE_SUPER_MAGIC: {false, "fuse: a program serves it, and its mappings fault when that ends"},
	unix.RAMFS_MAGIC:      {false, "ramfs: cannot reserve room"},
	magicMSDOS:            {false, "vfat: cannot reserve room"},
	magicExFAT:            {false, "exfat: cannot reserve room"},
	magicNTFS3:            {false, "ntfs: not tried with mapped counters"},
	magicSquashfs:         {false, "squashfs: read-only"},
}

// Mappable reports whether dir's filesystem can hold mapped counters. If not,
// reason says why. If so, reason is empty, or a warning: it names the filesystem
// and what it promises less of.
func Mappable(dir string) (ok bool, reason string) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return false, fmt.Sprintf("filesystem of %s unknown: %v", dir, err)
	}
	magic := uint32(st.Type) //nolint:gosec // signed and 32 bits wide on some architectures
	fs, known := filesystems[magic]
	if !known {
		return false, fmt.Sprintf("filesystem type %#x: not known to be safe for mapped counters", magic)
	}
	return fs.ok, fs.reason
}
