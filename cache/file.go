package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/inprocess/meter/internal/disk"
)

const (
	soon  = time.Second // after a change that must not be lost: who is whose customer, and who no longer is
	later = time.Minute // after any other

	pace     = 20              // times what the last write took: the least time to the next
	fileWait = 5 * time.Second // for another process that writes the same file
)

// file keeps a snapshot on disk. A nil file does nothing.
type file struct {
	path    string
	address string // of the Checker
	secret  string // where it is, for an operator
	log     *slog.Logger
	seal    *sealer
	encode  func() ([]byte, error)
	adopt   func(*snapshot)

	writing sync.Mutex  // held over writes, with the fields below
	last    os.FileInfo // of what we wrote or read; nil: nothing

	mu     sync.Mutex // never held over a write
	timer  *time.Timer
	due    time.Time // zero: nothing to write
	took   time.Duration
	closed bool
	fault  error
}

// openFile finds or makes the secret, and reads the snapshot if there is one.
//
// Errors: a File that can't be used. A snapshot that can't be read is no error.
func openFile(cfg *Config, address string, encode func() ([]byte, error), restore func(*snapshot) error, adopt func(*snapshot)) (*file, error) {
	path, err := filepath.Abs(cfg.File) // the working directory may change
	if err != nil {
		return nil, err
	}
	if err := disk.MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f := &file{path: path, address: address, secret: "Config.Secret", log: cfg.Logger, encode: encode, adopt: adopt, seal: &sealer{cfg.Secret}}
	lock, err := f.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if len(cfg.Secret) == 0 {
		f.secret = path + ".key"
		if f.seal.secret, err = secretIn(f.secret); err != nil {
			return nil, err
		}
	}
	s, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = restore(s)
	} else {
		err = fmt.Errorf("%w%s", err, f.remedy(err))
	}
	if err != nil {
		f.report(fmt.Errorf("cache: going on without the verdicts on disk: %w", err))
	}
	return f, nil
}

// remedy says what to do about a snapshot that is to be put aside.
func (f *file) remedy(err error) string {
	back := "that was not intended"
	switch {
	case errors.Is(err, errUnreadable):
		back = f.secret + " has changed"
	case !errors.Is(err, errOther):
		return ""
	}
	return fmt.Sprintf("; the next snapshot puts it aside as %s.unreadable: if %s, stop, undo the change, and rename that file to %s; until then customers are asked about anew, and usage of those who don't come again waits for their key",
		f.path, back, f.path)
}

func (f *file) lock() (*disk.FileLock, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fileWait)
	defer cancel()
	return disk.Lock(ctx, f.path+".lock")
}

// read reads the snapshot. f.writing is held, or f not yet shared.
//
// Errors: errForeign; errUnreadable; errOther; the system's.
func (f *file) read() (*snapshot, error) {
	in, err := disk.OpenFile(f.path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	sealed, err := io.ReadAll(io.LimitReader(in, int64(len(magic))))
	if err == nil && ours(sealed) {
		var rest []byte
		rest, err = io.ReadAll(in)
		sealed = append(sealed, rest...)
	}
	if err != nil {
		return nil, err
	}
	s, err := f.seal.open(sealed)
	if err != nil {
		return nil, fmt.Errorf("%s %w", f.path, err)
	}
	if s.Address != f.address {
		return nil, fmt.Errorf("%s %w: %q, and it is %q now", f.path, errOther, s.Address, f.address)
	}
	f.last = info
	return s, nil
}

// changed sees to it that the snapshot is written, within about that time.
func (f *file) changed(within time.Duration) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.schedule(within)
	}
}

func (f *file) schedule(within time.Duration) {
	within = max(within, pace*f.took)
	due := time.Now().Add(within)
	switch {
	case f.timer == nil:
		f.timer = time.AfterFunc(within, f.flush)
	case f.due.IsZero() || due.Before(f.due):
		f.timer.Reset(within)
	default:
		return
	}
	f.due = due
}

// flush writes what has changed.
func (f *file) flush() {
	if f == nil {
		return
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	due := !f.due.IsZero()
	f.due = time.Time{}
	f.mu.Unlock()
	if !due {
		return
	}
	began := time.Now()
	err := f.write()
	if err != nil {
		err = fmt.Errorf("cache: verdicts are not on disk: %w", err)
	}
	f.report(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = time.Since(began)
	if err != nil && !f.closed {
		f.schedule(later)
	}
}

// close writes what is left to write, and nothing after it.
func (f *file) close() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	f.closed = true
	due := !f.due.IsZero()
	if f.timer != nil {
		f.timer.Stop()
	}
	f.mu.Unlock()
	f.flush()
	if !due {
		return nil
	}
	return f.health()
}

// report remembers a fault, and logs it if it is news. nil: all is well again.
func (f *file) report(err error) {
	f.mu.Lock()
	before := f.fault
	f.fault = err
	f.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		f.log.Warn("cache: File", slog.Any("error", err))
	case err == nil && before != nil:
		f.log.Info("cache: File is written again", slog.String("path", f.path))
	}
}

func (f *file) health() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}
