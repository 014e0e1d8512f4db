//go:build !linux && !darwin

package disk

import "os"

func allocate(f *os.File, size, off, n int64) error {
	if err := rewrite(f, off, min(size, off+n)); err != nil {
		return err
	}
	zeros := make([]byte, min(n, rewriteChunk))
	for at, end := max(off, size), off+n; at < end; {
		written, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at)
		if err != nil {
			return err
		}
		at += int64(written)
	}
	return nil
}
