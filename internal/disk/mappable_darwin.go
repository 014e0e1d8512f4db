package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Mappable reports whether dir's filesystem can hold mapped counters. If not,
// reason says why. If so, reason is empty, or a warning: it names the filesystem
// and what it promises less of.
func Mappable(dir string) (ok bool, reason string) {
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return false, fmt.Sprintf("filesystem of %s unknown: %v", dir, err)
	}
	name := unix.ByteSliceToString(st.Fstypename[:])
	switch {
	case st.Flags&unix.MNT_LOCAL == 0:
		return false, name + ": network, so other machines and outages get at mapped memory"
	case name == "apfs":
		return true, "apfs: after a snapshot, as backups make them, a reserved block is copied when written, and a full disk then fails"
	case name == "hfs":
		return true, ""
	}
	return false, name + ": not known to be safe for mapped counters"
}
