//go:build unix

package disk

import "golang.org/x/sys/unix"

// retryEINTR repeats a call that a signal cut short: the Go runtime sends itself
// signals all the time.
func retryEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}
