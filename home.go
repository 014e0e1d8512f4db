package meter

import (
	"fmt"
	"os"
	"path/filepath"
)

// home remembers which directory and lock a meter opened. Open files outlive their
// names: somebody may delete both without anything failing.
type home []place

type place struct {
	path string
	was  os.FileInfo
}

func homeOf(dir string) (h home) {
	if dir == InMemory {
		return nil
	}
	if absolute, err := filepath.Abs(dir); err == nil { // the working directory may change
		dir = absolute
	}
	for _, path := range []string{dir, filepath.Join(dir, "lock")} {
		if info, err := os.Stat(path); err == nil {
			h = append(h, place{path, info})
		}
	}
	return h
}

// gone says which of the two is not there any more, or is another one; nil: none.
func (h home) gone() error {
	for _, p := range h {
		if is, err := os.Stat(p.path); err != nil || !os.SameFile(p.was, is) {
			return fmt.Errorf("meter: %s was moved, deleted or replaced while the meter ran: what is left is not there", p.path)
		}
	}
	return nil
}
