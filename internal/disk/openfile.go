package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errSymlink keeps whoever may write to a directory from steering our writes elsewhere.
var errSymlink = errors.New("is a symbolic link, which is refused: remove it")

// OpenFile opens path with flag (as for os.OpenFile), creating it with mode 0600
// if flag says so, closed on exec. It refuses anything but a regular file and
// does not follow a symbolic link; links in parent directories are followed.
//
// Errors: *fs.PathError, naming what is in the way.
func OpenFile(path string, flag int) (*os.File, error) {
	f, err := openNoFollow(path, flag)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: notRegular(info.Mode())}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func notRegular(mode fs.FileMode) error {
	if mode&fs.ModeSymlink != 0 {
		return errSymlink
	}
	return fmt.Errorf("is not a regular file (%v): remove it", mode.Type())
}
