//go:build unix

package disk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// IsFull reports whether err says that the disk, or the user's quota of it, has
// no room left.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
