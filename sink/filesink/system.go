package filesink

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// system is the part of package os that can fail while records are at stake; its
// tests make it fail.
type system interface {
	// open a file for reading and writing, not following a symbolic link, with
	// flag added.
	open(path string, flag int) (file, error)
	rename(from, to string) error
	syncDir(path string) error
}

type file interface {
	io.Reader
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

type realSystem struct{}

func (realSystem) open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|noFollow|flag, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File in a file is not nil
	}
	return f, nil
}

func (realSystem) rename(from, to string) error { return os.Rename(from, to) }

func (realSystem) syncDir(path string) error {
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		return nil // directories can't be synced there; NTFS journals them
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
