//go:build unix

package disk

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func openNoFollow(path string, flag int) (*os.File, error) {
	// O_NONBLOCK: opening a named pipe would wait for its other end.
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errSymlink}
	}
	return f, err
}
