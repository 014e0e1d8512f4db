// Package disk is what the ledger asks of the operating system: room that is
// really there, counters mapped from a file, durability, the identity of a file,
// the ownership of a directory, and a way to survive memory that faults.
//
// It knows nothing of segments or records. Its errors name the path and carry no
// package prefix; callers add theirs.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// pathError names the operation and the file, and hides neither the system's
// error code nor its meaning from errors.Is.
func pathError(op string, f *os.File, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	return &fs.PathError{Op: op, Path: f.Name(), Err: err}
}

// onFd runs fn on f's descriptor, which stays open meanwhile even if another
// goroutine closes f.
func onFd(f *os.File, fn func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = fn(fd) }); err != nil {
		return fmt.Errorf("%w: %w", os.ErrClosed, err) // Control fails for no other reason
	}
	return inner
}
