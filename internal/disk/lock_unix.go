//go:build unix

package disk

import "golang.org/x/sys/unix"

func lockFd(fd uintptr) error {
	err := retryEINTR(func() error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

func unlockFd(fd uintptr) error {
	return retryEINTR(func() error { return unix.Flock(int(fd), unix.LOCK_UN) })
}
