//go:build unix

package disk

import "golang.org/x/sys/unix"

// writable asks instead of trying: a full disk must not keep us from a directory
// that holds counts.
func writable(dir string) error {
	return retryEINTR(func() error {
		return unix.Faccessat(unix.AT_FDCWD, dir, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	})
}
