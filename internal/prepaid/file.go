package prepaid

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/inprocess/meter/internal/disk"
)

// fileName is the file's, in the meter's directory.
const fileName = "prepaid"

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

	mu     sync.Mutex
	next   *batch // to be written by whoever gets io first
	closed bool
	lines
}

// batch is lines that are made durable together.
type batch struct {
	text []byte
	undo []func()
	done bool // under io, as err
	err  error
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
		case one.State != nil:
			l.states[one.State.owner()] = one.State
		case one.Decision != nil:
			l.decisions = append(l.decisions, one.Decision)
		}
	}
	return info, damaged, nil
}

func (s *state) owner() owner { return owner{s.Feature, s.Subject} }

// write makes a line durable, and then what the file says.
func (b *file) write(l line) error {
	b.mu.Lock()
	if b.next == nil {
		b.next = &batch{}
	}
	mine := b.next
	mine.text = append(mine.text, l.encode()...)
	mine.undo = append(mine.undo, b.apply(l))
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
	one.done = true
	if b.closed {
		one.err = ErrClosed
	}
	b.mu.Unlock()
	if one.err == nil {
		one.err = b.store(one.text)
	}
	if one.err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, undo := range one.undo { // each of another subject
			undo()
		}
	}
}

// apply takes a line in, and returns what takes it out again. The caller holds mu.
func (b *file) apply(l line) (undo func()) {
	if l.Decision != nil {
		b.decisions = append(b.decisions, l.Decision)
		return func() {
			b.decisions = slices.DeleteFunc(b.decisions, func(d *decision) bool { return d == l.Decision })
		}
	}
	k := l.State.owner()
	was, known := b.states[k]
	b.states[k] = l.State
	return func() {
		if b.states[k] = was; !known {
			delete(b.states, k)
		}
	}
}

// store appends lines, or writes all of them anew. The caller holds io.
func (b *file) store(text []byte) (err error) {
	if b.dir == "" {
		return nil
	}
	if b.f == nil || b.size > rewriteAt+4*b.least {
		return b.rewrite()
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

// rewrite replaces the file by one with a line for each state. On an error b.f is nil.
func (b *file) rewrite() error {
	b.drop()
	path := filepath.Join(b.dir, fileName)
	if err := b.before("create"); err != nil {
		return err
	}
	f, err := disk.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	text, err := b.all(f)
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"write", func() error { _, err := f.WriteAt(text, 0); return err }},
		{"sync new", func() error { return b.sync(f) }},
		{"close", func() error { return f.Close() }}, // not every system renames what is open
		{"rename", func() error { return os.Rename(path+".new", path) }},
		{"sync directory", func() error { return syncDir(b.dir) }},
	} {
		if err == nil {
			if err = b.before(s.what); err == nil {
				err = s.do()
			}
		}
	}
	if err == nil {
		b.f, err = disk.OpenFile(path, os.O_RDWR)
	}
	if err != nil {
		f.Close()
		return err
	}
	b.size, b.least = int64(len(text)), int64(len(text))
	return nil
}

// all is what the file says.
func (b *file) all(f *os.File) ([]byte, error) {
	is, err := disk.IdentityOf(f)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	text := line{File: &fileInfo{is.Inode, is.Birth}}.encode()
	for _, d := range b.decisions {
		text = append(text, line{Decision: d}.encode()...)
	}
	for _, s := range b.states {
		text = append(text, line{State: s}.encode()...)
	}
	return text, nil
}

func (b *file) before(what string) error {
	if b.step == nil {
		return nil
	}
	return b.step(what)
}

// drop has the next line written to a new file. The caller holds io.
func (b *file) drop() {
	if b.f != nil {
		b.f.Close()
		b.f = nil
	}
}

func (b *file) close() {
	b.io.Lock()
	defer b.io.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.drop()
	if b.dir == "" || len(b.decisions) > 0 {
		return
	}
	for _, s := range b.states {
		if !s.idle() {
			return
		}
	}
	// Nothing is left that another process should know.
	if b.before("remove") == nil {
		_ = os.Remove(filepath.Join(b.dir, fileName))
	}
}

func syncDir(dir string) error {
	if err := disk.SyncDir(dir); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
