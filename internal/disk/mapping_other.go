//go:build !linux && !darwin

package disk

import (
	"errors"
	"os"
)

// Mapping is not to be had on this system; Mappable says so.
//
// Concurrency: safe.
type Mapping struct{}

// Map fails on this system.
//
// Errors: always errors.ErrUnsupported.
func Map(f *os.File, off, n int64) (*Mapping, error) {
	return nil, pathError("map", f, errors.ErrUnsupported)
}

// Bytes is nil on this system.
func (m *Mapping) Bytes() []byte { return nil }

// Unmap does nothing on this system.
//
// Errors: none.
func (m *Mapping) Unmap() error { return nil }

// Sync does nothing on this system.
//
// Errors: none.
func (m *Mapping) Sync() error { return nil }
