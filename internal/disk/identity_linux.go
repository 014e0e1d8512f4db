package disk

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// IdentityOf returns the identity of an open file. On overlayfs whose layers are
// several filesystems, the inode may change with every mount.
//
// Errors: the system's.
func IdentityOf(f *os.File) (Identity, error) {
	var id Identity
	err := onFd(f, func(fd uintptr) error {
		var st unix.Statx_t
		err := retryEINTR(func() error {
			return unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
		})
		// ENOSYS: kernels before 4.11; EPERM: sandboxes that do not know statx.
		if err == unix.ENOSYS || err == unix.EPERM {
			var old unix.Stat_t
			err = retryEINTR(func() error { return unix.Fstat(int(fd), &old) })
			id.Inode = old.Ino
			return err
		}
		id.Inode = st.Ino
		if st.Mask&unix.STATX_BTIME != 0 {
			id.Birth = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).UnixNano()
		}
		return err
	})
	return id, pathError("stat", f, err)
}
