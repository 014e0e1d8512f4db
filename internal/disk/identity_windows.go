package disk

import (
	"os"

	"golang.org/x/sys/windows"
)

// IdentityOf returns the identity of an open file: its index on the volume and
// its creation time.
//
// Errors: the system's.
func IdentityOf(f *os.File) (Identity, error) {
	var id Identity
	err := onFd(f, func(fd uintptr) error {
		var info windows.ByHandleFileInformation
		err := windows.GetFileInformationByHandle(windows.Handle(fd), &info)
		id = Identity{
			Inode: uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
			Birth: info.CreationTime.Nanoseconds(),
		}
		return err
	})
	return id, pathError("stat", f, err)
}
