package disk

import (
	"io"
	"os"
)

const rewriteChunk = 64 << 10

// rewrite writes [from, to) of f, all within its size, over itself: that fills holes.
func rewrite(f *os.File, from, to int64) error {
	if from >= to {
		return nil
	}
	buf := make([]byte, min(to-from, rewriteChunk))
	for at := from; at < to; {
		part := buf[:min(int64(len(buf)), to-at)]
		if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(part))), part); err != nil {
			return err
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
		at += int64(len(part))
	}
	return nil
}
