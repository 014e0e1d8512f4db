package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MakeDir makes sure that dir is a directory we may write to. It creates dir and
// missing parents with mode 0700 and makes their entries durable; one that exists
// keeps its mode. It refuses a symbolic link as the last element.
//
// Blocking: disk writes where something is created.
// Errors: what is in the way, by path, and what to do.
func MakeDir(dir string) error {
	if dir == "" {
		return errors.New("no directory named")
	}
	dir = filepath.Clean(dir) // a trailing slash would follow a symbolic link
	if err := makeMissing(dir); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("directory %s is a symbolic link, which is refused: name the directory it points to", dir)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory (%v): remove it or name another path", dir, info.Mode())
	}
	if err := writable(dir); err != nil {
		return fmt.Errorf("directory %s is not writable by this process: change its owner or mode, or name another one: %w", dir, err)
	}
	return nil
}

// makeMissing creates dir and its missing parents, topmost first, and syncs the
// directory of each: a counter file is no safer than the entries that lead to it.
func makeMissing(dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return fmt.Errorf("directory %s does not exist and cannot be created: name another one", dir)
	}
	if err := makeMissing(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("directory %s cannot be created: create it for this process's user, or name another one: %w", dir, err)
	}
	return SyncDir(parent)
}
