package disk

import (
	"errors"
	"os"
)

// writable tries, because a mode says little on this system. A full disk must
// not keep us from a directory that holds counts.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".writable-*")
	if IsFull(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
