package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Sync makes f's data and size durable. It does not cover mappings: call
// Mapping.Sync first. A failed sync may have dropped the data: never take the
// success of a second one on the same file for an answer.
//
// os.File.Sync is F_FULLFSYNC on macOS, which empties the drive's cache too;
// plain fsync leaves it (fsync(2)).
//
// Blocking: until the disk answers.
// Errors: the system's.
func Sync(f *os.File) error { return f.Sync() }

// Sync hands what was written to the mapping over to the file, so that the
// function Sync makes it durable. It does nothing after Unmap; never call the two
// at the same time.
//
// Blocking: disk writes.
// Errors: the system's.
func (m *Mapping) Sync() error {
	b := m.Bytes()
	if b == nil {
		return nil
	}
	return retryEINTR(func() error { return unix.Msync(b, unix.MS_SYNC) })
}
