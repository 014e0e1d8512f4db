package filesink

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ready brings the sink to where records may be appended at size: the lock held,
// the IDs known, and everything up to size on disk. Whatever it does is safe to
// repeat, and to be interrupted by death. With an error of it nothing new was
// written.
func (s *Sink) ready(wait time.Duration) error {
	if s.closed {
		return errors.New("filesink: closed")
	}
	if err := s.faults(); err != nil {
		return err
	}
	if err := s.acquire(wait); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	if s.file != nil && !s.mine() {
		// Cut off, grown or replaced by somebody else. Positions mean nothing now.
		if err := s.closeFile(); err != nil {
			return fmt.Errorf("filesink: %w", err)
		}
	}
	if s.file == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	return s.syncDir()
}

func (s *Sink) acquire(wait time.Duration) error {
	if s.lock != nil {
		return nil
	}
	dir := filepath.Dir(s.path)
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("filesink: Config.Path: there is no directory %s: create it", dir)
	} else if err != nil {
		return fmt.Errorf("filesink: Config.Path: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("filesink: Config.Path: %s is no directory", dir)
	}
	if err := regular(s.path); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path+".lock", os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return fmt.Errorf("filesink: lock: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		locked, err := tryLock(f)
		if locked {
			s.lock = f
			return nil
		}
		if err == nil && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err == nil {
			err = fmt.Errorf("%s is in use by another process, or by another sink of this one: stop the other process, or raise Config.LockWait if it is about to stop, for a path of one's own would split the bill; two routes of one process need a Config.Path each", s.path)
		}
		return errors.Join(fmt.Errorf("filesink: lock: %w", err), f.Close())
	}
}

// regular refuses what is there unless it is a plain file. Nothing there is fine.
func regular(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("filesink: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("filesink: %s is a symbolic link: name the file itself", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("filesink: %s is not a regular file", path)
	}
	return nil
}

// load reads the renamed files, once.
func (s *Sink) load() error {
	if s.loaded {
		return nil
	}
	names, err := s.rotated()
	if err != nil {
		return err
	}
	s.ids = newIndex()
	for _, name := range names {
		if err := regular(name); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("filesink: %w", err)
		}
		s.ids.begin(name)
		_, err = scan(f, s.ids.add)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("filesink: read %s: %w", name, err)
		}
	}
	s.loaded = true
	return nil
}

var suffix = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z$`)

// rotated lists the renamed files, oldest first.
func (s *Sink) rotated() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return nil, fmt.Errorf("filesink: %w", err)
	}
	var names []string
	for _, entry := range entries {
		rest, ok := strings.CutPrefix(entry.Name(), filepath.Base(s.path))
		if ok && suffix.MatchString(rest) {
			names = append(names, s.path+rest)
		}
	}
	slices.Sort(names)
	return names, nil
}

// mine tells whether path still leads to file, and file to where it was left.
func (s *Sink) mine() bool {
	held, err := s.file.Stat()
	if err != nil || held.Size() != s.size {
		return false
	}
	there, err := os.Lstat(s.path)
	return err == nil && os.SameFile(held, there)
}

// open reads the file at path, or creates it, and puts its end in order.
func (s *Sink) open() (err error) {
	if err := regular(s.path); err != nil {
		return err
	}
	s.renamed = true // perhaps by a process that died before it had synced that
	f, err := s.os.open(s.path, os.O_CREATE)
	if err != nil {
		return fmt.Errorf("filesink: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("filesink: open %s: %w", s.path, err), f.Close())
		}
	}()
	s.ids.begin("")
	c, err := scan(f, s.ids.add)
	if err != nil {
		return err
	}
	end := c.end
	switch {
	case c.foreign:
		err = errors.New("it holds something else than records: name another Config.Path, or move it away")
	case c.tail == torn:
		err = f.Truncate(end)
	case c.tail == unended:
		end, err = endLine(f)
	}
	if err != nil {
		return err
	}
	if err := settle(f, end); err != nil {
		return err
	}
	s.file, s.size = f, end
	return nil
}

// settle has the first size bytes of f on disk, for what f holds is answered as
// delivered from now on. A sync alone would prove nothing: where an earlier one
// failed, in a process before this one perhaps, the system takes the pages for
// written that never reached the disk. So they are written again first.
func settle(f file, size int64) error {
	if _, err := io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	return f.Sync()
}

func endLine(f file) (end int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	_, err = f.WriteAt([]byte("\n"), info.Size())
	return info.Size() + 1, err
}

func (s *Sink) syncDir() error {
	if !s.renamed {
		return nil
	}
	if err := s.os.syncDir(filepath.Dir(s.path)); err != nil {
		return fmt.Errorf("filesink: sync directory: %w", err)
	}
	s.renamed = false
	return nil
}
