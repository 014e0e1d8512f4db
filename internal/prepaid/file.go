package prepaid

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/inprocess/meter/internal/disk"
)

// The file's names in the meter's directory. It has the second one when it was closed and
// nobody owed anything by it, which tells others that the directory may be taken over.
const (
	fileName    = "prepaid"
	settledName = "prepaid-settled"
)

// rewriteAt is how large the file becomes, at least, before it is written anew.
const rewriteAt = 1 << 20

// file keeps the states, one line for each change: durable before a transfer is sent,
// and after it. After any failure it is written anew as a whole, for what a failed write
// or sync has left on the disk is unknown.
type file struct {
	dir  string                  // "": in memory
	step func(what string) error // in tests, may fail what is about to happen
	sync func(*os.File) error    // disk.Sync

	io    sync.Mutex // held while the file is written; before mu
	f     *os.File   // nil: to be written anew
	size  int64
	least int64 // size after the last rewrite
	lines       // that are durable; changed under io

	mu     sync.Mutex
	next   *batch // to be written by whoever gets io first
	closed bool
}

// batch is lines that are made durable together.
type batch struct {
	lines []line
	done  bool // under io, as err
	err   error
}

// lines is what the file says.
type lines struct {
	states    map[owner]*state
	decisions []*decision
}

// owner is whose units a state is about.
type owner struct{ feature, subject string }

func newID() string { return rand.Text() }

// open reads the file, if there is one. It is only written once there is something to
// say. damaged is how many of its lines can't be read.
func (b *file) open() (damaged int, isCopy bool, err error) {
	b.states = map[owner]*state{}
	if b.sync == nil {
		b.sync = disk.Sync
	}
	if b.dir == "" {
		return 0, false, nil
	}
	f, err := disk.OpenFile(filepath.Join(b.dir, fileName), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) { // the other one may be older
		f, err = disk.OpenFile(filepath.Join(b.dir, settledName), os.O_RDONLY)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	was, damaged, err := b.read(f)
	if err != nil || was == nil {
		return damaged, false, err
	}
	is, err := disk.IdentityOf(f)
	return damaged, was.identity() != is, err
}

// read takes in the lines of a file.
func (l *lines) read(f *os.File) (info *fileInfo, damaged int, err error) {
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, 0, err
	}
	for text := range bytes.Lines(data) {
		one, err := decodeLine(text)
		switch {
		case err != nil && bytes.HasSuffix(text, []byte("\n")):
			damaged++
		case err != nil: // torn: what it said was not acted on
		case one.File != nil:
			info = one.File
		default:
			l.take(one)
		}
	}
	return info, damaged, nil
}

// take takes in a line.
func (l *lines) take(one line) {
	switch {
	case one.State != nil:
		l.states[one.State.owner()] = one.State
	case one.Decision != nil:
		l.decisions = append(l.decisions, one.Decision)
	}
}

func (s *state) owner() owner { return owner{s.Feature, s.Subject} }

// write makes lines durable, and then what the file says. After an error they may stand
// there or not, until the next write has worked.
func (b *file) write(l ...line) error {
	b.mu.Lock()
	if b.next == nil {
		b.next = &batch{}
	}
	mine := b.next
	mine.lines = append(mine.lines, l...)
	b.mu.Unlock()
	b.io.Lock()
	defer b.io.Unlock()
	if !mine.done { // nobody of it was here
		b.finish(mine)
	}
	return mine.err
}

// finish writes a batch. The caller holds io.
func (b *file) finish(one *batch) {
	b.mu.Lock()
	b.next = nil
	closed := b.closed
	b.mu.Unlock()
	one.done = true
	if closed {
		one.err = ErrClosed
	} else if one.err = b.store(one.lines); one.err == nil {
		for _, l := range one.lines {
			b.take(l)
		}
	}
}

// store appends lines, or writes all of them anew. The caller holds io.
func (b *file) store(more []line) (err error) {
	if b.dir == "" {
		return nil
	}
	if b.f == nil || b.size > rewriteAt+4*b.least {
		return b.rewrite(fileName, more)
	}
	var text []byte
	for _, l := range more {
		text = append(text, l.encode()...)
	}
	if err = b.before("append"); err == nil {
		_, err = b.f.WriteAt(text, b.size)
	}
	if err == nil {
		if err = b.before("sync"); err == nil {
			err = b.sync(b.f)
		}
	}
	if err != nil {
		b.drop()
		return err
	}
	b.size += int64(len(text))
	return nil
}
