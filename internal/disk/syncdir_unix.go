//go:build unix

package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SyncDir makes the entries of dir durable: files created, renamed or removed in it.
// Where the filesystem has no such operation, as some network filesystems, it does
// nothing.
//
// Blocking: until the disk answers.
// Errors: the system's.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) { // fsync(2): "does not support synchronization"
		return nil
	}
	return err
}
