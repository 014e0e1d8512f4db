package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// ErrLocked says that another holder, in this process or another, still had the
// lock when the wait ended.
var ErrLocked = errors.New("locked by another process")

const (
	firstLockPoll = 10 * time.Millisecond
	maxLockPoll   = 250 * time.Millisecond
)

// FileLock is an exclusive lock that the system releases when the process dies,
// however it dies.
//
// Concurrency: safe.
type FileLock struct {
	close func() error
}

// Lock takes the exclusive lock on path, creating the file with mode 0600 if it
// is missing; a symbolic link is refused. It tries at least once, then again
// until ctx ends, so an ended ctx means: do not wait.
//
// Guarantee: path named the locked file after the lock was taken; a file deleted
// or replaced meanwhile is not taken for it. Deleting the file while the lock is
// held lets another process in.
// Blocking: until locked or ctx ends.
// Errors: ErrLocked, with the context's error; those of OpenFile; the system's.
func Lock(ctx context.Context, path string) (*FileLock, error) {
	for poll := firstLockPoll; ; poll = min(2*poll, maxLockPoll) {
		l, err := tryLock(path)
		if err == nil || !errors.Is(err, ErrLocked) {
			return l, err
		}
		if err := wait(ctx, poll); err != nil {
			return nil, fmt.Errorf("%s: %w (%w)", path, ErrLocked, err)
		}
	}
}

// Close releases the lock and leaves the file. Later calls do nothing and return
// what the first did.
//
// Errors: the system's.
func (l *FileLock) Close() error { return l.close() }

// tryLock opens path anew each time, for it may name another file by now.
func tryLock(path string) (*FileLock, error) {
	f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return claim(f, path)
}

// claim locks f, which was opened at path, or closes it.
func claim(f *os.File, path string) (*FileLock, error) {
	err := onFd(f, lockFd)
	if err == nil {
		err = stillNamed(f, path)
	}
	if err != nil {
		return nil, errors.Join(pathError("lock", f, err), f.Close())
	}
	return &FileLock{sync.OnceValue(func() error {
		// Unlocking first: a child being started may hold a copy of the descriptor.
		return errors.Join(pathError("unlock", f, onFd(f, unlockFd)), f.Close())
	})}, nil
}

// stillNamed answers ErrLocked if path no longer names f: whoever replaced the
// file may hold the lock on the new one.
func stillNamed(f *os.File, path string) error {
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return ErrLocked
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
