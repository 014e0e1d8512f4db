package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Sync makes f's data and size durable, including what was written to shared
// mappings of it before the call. A failed sync may have dropped the data: never
// take the success of a second one on the same file for an answer.
//
// fdatasync alone covers mappings. The kernel tracks pages dirtied through a
// shared mapping like any others, and msync(MS_SYNC) is nothing but
// vfs_fsync_range with datasync set on the range's file (mm/msync.c: "MS_SYNC
// syncs the entire file - including mappings ... The application may now run
// fsync() to write out the dirty pages and wait on the writeout"). The size is
// included because reading the data needs it (fdatasync(2)).
//
// Blocking: until the disk answers.
// Errors: the system's.
func Sync(f *os.File) error {
	return pathError("sync", f, onFd(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fdatasync(int(fd)) })
	}))
}

// Sync does nothing on Linux, where the function Sync covers mappings.
//
// Errors: none.
func (m *Mapping) Sync() error { return nil }
