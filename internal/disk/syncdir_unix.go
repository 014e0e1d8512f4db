//go:build unix

package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SyncDir makes the entries of dir durable: files created, renamed or removed in it.
//
// Blocking: until the disk answers.
// Errors: the system's; errors.ErrUnsupported where the filesystem has no such
// operation, as some network filesystems.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) { // fsync(2): "does not support synchronization"
		return fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	return err
}
