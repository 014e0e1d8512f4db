package disk

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsFull reports whether err says that the disk, or the user's quota of it, has
// no room left.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) ||
		errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
