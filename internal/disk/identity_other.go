//go:build !linux && !darwin && !windows

package disk

import (
	"os"
	"syscall"
)

// IdentityOf returns the inode of an open file; its birth is unknown here.
//
// Errors: the system's.
func IdentityOf(f *os.File) (Identity, error) {
	info, err := f.Stat()
	if err != nil {
		return Identity{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Identity{}, nil
	}
	return Identity{Inode: uint64(st.Ino)}, nil
}
