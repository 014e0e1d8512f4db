//go:build linux || darwin

package disk

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Mapping is a part of a file as shared, writable memory. What is written there
// is in the file at once for every reader, and stays there when the process dies.
// It outlives the *os.File it came from.
//
// Concurrency: safe; but nobody may use the bytes once Unmap was called.
type Mapping struct {
	data atomic.Pointer[[]byte]
}

// Map maps [off, off+n) of f shared and writable. off must be a multiple of the
// page size, and the range must lie within the file: memory past its end faults.
//
// Errors: a range that does not fit, the system's refusal.
func Map(f *os.File, off, n int64) (*Mapping, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	page := int64(os.Getpagesize())
	switch {
	case off < 0 || n <= 0 || n > math.MaxInt:
		return nil, pathError("map", f, fmt.Errorf("bad range: offset %d, length %d", off, n))
	case off%page != 0:
		return nil, pathError("map", f, fmt.Errorf("offset %d is not a multiple of the page size %d", off, page))
	case n > info.Size()-off:
		return nil, pathError("map", f, fmt.Errorf("range %d+%d passes the file's end at %d: reserve it first", off, n, info.Size()))
	}
	m := new(Mapping)
	err = onFd(f, func(fd uintptr) error {
		b, err := unix.Mmap(int(fd), off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil {
			m.data.Store(&b)
		}
		return err
	})
	if err != nil {
		return nil, pathError("map", f, err)
	}
	return m, nil
}

// Bytes is the mapped memory; nil after Unmap. Access it under Guard.
func (m *Mapping) Bytes() []byte {
	if b := m.data.Load(); b != nil {
		return *b
	}
	return nil
}

// Unmap gives the memory back. Slices of it that are still around then point
// nowhere, or at what the system puts there next: call it when none is in use.
// Later calls do nothing. It does not make anything durable.
//
// Errors: the system's refusal.
func (m *Mapping) Unmap() error {
	b := m.data.Swap(nil)
	if b == nil {
		return nil
	}
	if err := unix.Munmap(*b); err != nil {
		return errors.Join(errors.New("unmap"), err)
	}
	return nil
}
