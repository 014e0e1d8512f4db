package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// IdentityOf returns the identity of an open file.
//
// Errors: the system's.
func IdentityOf(f *os.File) (Identity, error) {
	var id Identity
	err := onFd(f, func(fd uintptr) error {
		var st unix.Stat_t
		err := retryEINTR(func() error { return unix.Fstat(int(fd), &st) })
		id = Identity{Inode: st.Ino, Birth: st.Btim.Nano()}
		return err
	})
	return id, pathError("stat", f, err)
}
