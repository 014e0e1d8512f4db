package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

func allocate(f *os.File, size, off, n int64) error {
	// F_PREALLOCATE only adds after the end; holes before it are written.
	if err := rewrite(f, off, min(size, off+n)); err != nil {
		return err
	}
	if off+n <= size {
		return nil
	}
	err := onFd(f, func(fd uintptr) error {
		return retryEINTR(func() error {
			return unix.FcntlFstore(fd, unix.F_PREALLOCATE, &unix.Fstore_t{
				Flags:   unix.F_ALLOCATEALL,
				Posmode: unix.F_PEOFPOSMODE,
				Length:  off + n - size,
			})
		})
	})
	if err != nil {
		return err
	}
	return f.Truncate(off + n)
}
