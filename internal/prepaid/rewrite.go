package prepaid

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/inprocess/meter/internal/disk"
)

// rewrite replaces the file by one with a line for each state, and more. On an error b.f
// is nil.
func (b *file) rewrite(name string, more []line) error {
	b.drop()
	path := filepath.Join(b.dir, name)
	other := filepath.Join(b.dir, map[string]string{fileName: settledName, settledName: fileName}[name])
	if err := b.before("create"); err != nil {
		return err
	}
	f, err := disk.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	text, err := b.all(f, more)
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"write", func() error { _, err := f.WriteAt(text, 0); return err }},
		{"sync new", func() error { return b.sync(f) }},
		{"close", func() error { return f.Close() }}, // not every system renames what is open
		{"rename", func() error { return os.Rename(path+".new", path) }},
		{"sync directory", func() error { return disk.SyncDir(b.dir) }},
		{"remove", func() error { return removeIfThere(other) }}, // if that is lost, fileName is right
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

// all is what the file is to say.
func (b *file) all(f *os.File, more []line) ([]byte, error) {
	is, err := disk.IdentityOf(f)
	if err != nil {
		return nil, err
	}
	now := lines{maps.Clone(b.states), slices.Clone(b.decisions)}
	for _, l := range more {
		now.take(l)
	}
	text := line{File: &fileInfo{is.Inode, is.Birth}}.encode()
	for _, d := range now.decisions {
		text = append(text, line{Decision: d}.encode()...)
	}
	for _, s := range now.states {
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

// close notes the last states, and whether anybody owes anything by them. If that can't
// be noted, what was before is as right.
func (b *file) close(last []line) {
	b.io.Lock()
	defer b.io.Unlock()
	b.mu.Lock()
	closed := b.closed
	b.closed = true
	b.mu.Unlock()
	if closed {
		return
	}
	defer b.drop()
	for _, l := range last {
		b.take(l)
	}
	if b.dir == "" || len(b.states) == 0 {
		return
	}
	name := settledName
	if len(b.decisions) > 0 { // which stay where they were made
		name = fileName
	}
	for _, s := range b.states {
		if !s.settled() {
			name = fileName
		}
	}
	if name != fileName || len(last) > 0 {
		_ = b.rewrite(name, nil)
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
