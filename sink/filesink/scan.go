package filesink

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// tail says how a file ends.
type tail uint8

const (
	whole   tail = iota // in a newline, or it is empty
	torn                // in the beginning of a record, or in zeros: never acknowledged
	unended             // in anything else, perhaps somebody's: it must not be cut off
)

// contents of a file.
type contents struct {
	end     int64 // of the last complete line
	tail    tail  // what follows end
	foreign bool  // there is no record in it, nor the remains of one
}

// scan reads lines and tells found the IDs of the records among them. Lines that
// are no records stay where they are: they may be what a disk left of something
// acknowledged.
func scan(r io.Reader, found func(id)) (contents, error) {
	lines := bufio.NewReaderSize(r, maxLine)
	var c contents
	var pos int64
	var long []byte // how a line longer than the buffer starts; it is no record
	records := 0
	for {
		text, err := lines.ReadSlice('\n')
		if pos == 0 && len(text) > 0 {
			c.foreign = !remains(text)
		}
		pos += int64(len(text))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if long == nil {
				long = bytes.Clone(text[:len(lineStart)])
			}
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return contents{}, err
		}
		i, ok := decode(bytes.TrimSuffix(text, []byte("\n")))
		if ok = ok && long == nil; ok {
			found(i)
			records++
		}
		if err == nil {
			long, c.end = nil, pos
			continue
		}
		if long != nil {
			text = long
		}
		switch {
		case pos == c.end: // whole
		case !ok && remains(text):
			c.tail = torn
		default: // perhaps a record that lacks its newline only
			c.tail = unended
		}
		c.foreign = c.foreign && records == 0
		return c, nil
	}
}

// remains tells whether text could be what a crash left of a record: its
// beginning, then perhaps the zeros of a block that was never written.
func remains(text []byte) bool {
	head, _, _ := bytes.Cut(text, []byte{0})
	return bytes.HasPrefix(head, lineStart) || bytes.HasPrefix(lineStart, head)
}
