package disk

import (
	"errors"
	"fmt"
	"math"
	"os"
)

// Reserve allocates blocks for [off, off+n) of f, so that writing there later, or
// counting in a mapping of it, cannot run out of room; it extends the file to
// off+n if it is shorter. New bytes read as 0, existing ones keep their value.
//
// Guarantee: on error the file has its former size. Not promised on filesystems
// that copy on write or compress, for which Mappable is false: there a later
// write can still find the disk full.
// Blocking: disk writes; on systems other than Linux and macOS it writes zeros.
// Errors: no room (see IsFull), errors.ErrUnsupported, the system's. Never call
// it for one file from two goroutines at once.
func Reserve(f *os.File, off, n int64) error {
	if off < 0 || n <= 0 || off > math.MaxInt64-n {
		return pathError("reserve", f, fmt.Errorf("bad range: offset %d, length %d", off, n))
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := allocate(f, size, off, n); err != nil {
		// Some filesystems keep what they got before room ran out. Cutting to
		// the former size gives that back, and a size that promises nothing.
		return errors.Join(pathError("reserve", f, err), f.Truncate(size))
	}
	return nil
}
