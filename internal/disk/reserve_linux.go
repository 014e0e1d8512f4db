package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

func allocate(f *os.File, _, off, n int64) error {
	return onFd(f, func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fallocate(int(fd), 0, off, n) })
	})
}
