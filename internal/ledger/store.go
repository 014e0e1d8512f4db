package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/inprocess/meter/internal/disk"
)

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

// store is the ledger's directory.
type store struct {
	dir   string
	max   atomic.Int64
	used  atomic.Int64 // bytes of all segment files
	since atomic.Int64 // second from which on everything settled is retained

	dropping sync.Mutex // held while retained files are deleted
	lock     *disk.FileLock
	mapped   bool   // counters may live in mapped files
	weak     string // why that protects less than it should; "": nothing known

	// step, in tests, is told what is about to happen and may fail it.
	step func(what string) error
}

const (
	formatFile     = "format"
	formatText     = "meter ledger "
	lockFile       = "lock"
	totalsFile     = "totals"
	quarantineFile = "quarantine.jsonl"
	retainedDir    = "retained"
	sinceFile      = "retained-since"
	damagedDir     = "damaged"
	segmentSuffix  = ".segment"
	journalSuffix  = ".journal"
)

// openStore makes dir if need be, locks it and checks that it is a ledger's.
func openStore(cfg Config) (*store, error) {
	if err := disk.MakeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("meter: Dir: %w", err)
	}
	if err := refuseForeign(cfg.Dir); err != nil {
		return nil, err // before it gets a lock file
	}
	lock, err := lockDir(cfg)
	if err != nil {
		return nil, err
	}
	st := &store{dir: cfg.Dir, lock: lock, step: cfg.step}
	st.max.Store(cfg.MaxDisk)
	st.used.Store(st.retainedBytes())
	if err := st.checkFormat(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	st.mapped, st.weak = disk.Mappable(cfg.Dir)
	st.mapped = st.mapped && !cfg.neverMap
	return st, nil
}

func lockDir(cfg Config) (*disk.FileLock, error) {
	path := filepath.Join(cfg.Dir, lockFile)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := disk.Lock(now, path)
	if errors.Is(err, disk.ErrLocked) && cfg.LockWait > 0 {
		cfg.Logger.Info("meter: directory in use, waiting for its owner to finish", "dir", cfg.Dir, "at_most", cfg.LockWait)
		wait, cancel := context.WithTimeout(context.Background(), cfg.LockWait)
		defer cancel()
		lock, err = disk.Lock(wait, path)
	}
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%w: another process, or another Meter in this one, counts in %s: give each a directory of its own, or a longer LockWait if the other one is about to stop", ErrLocked, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("meter: Dir: %w", err)
	}
	return lock, nil
}

// checkFormat refuses a directory of another format, and one that holds files
// and is no ledger.
func (st *store) checkFormat() error {
	path := filepath.Join(st.dir, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := refuseForeign(st.dir); err != nil {
			return err
		}
		return st.writeFile(formatFile, fmt.Appendf(nil, "%s%d\n", formatText, formatVersion))
	}
	if err != nil {
		return fmt.Errorf("meter: Dir: %w", err)
	}
	if want := fmt.Sprintf("%s%d\n", formatText, formatVersion); string(data) != want {
		return fmt.Errorf("%w: %s says %q, this program reads %q: use the version of meter that wrote it, or another directory",
			ErrFormat, path, strings.TrimSpace(string(data[:min(len(data), 40)])), strings.TrimSpace(want))
	}
	return nil
}

// refuseForeign refuses a directory that holds files and is no ledger.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("meter: Dir: %w", err)
	}
	ours := []string{lockFile, formatFile, formatFile + ".new", retainedDir, damagedDir, "lost+found"}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	if slices.Contains(names, formatFile) {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(ours, name) {
			return fmt.Errorf("%w: %s holds %q and is no ledger: give an empty or a new directory", ErrFormat, dir, name)
		}
	}
	return nil
}

// writeFile replaces a small file as a whole, durably.
func (st *store) writeFile(name string, data []byte) error {
	path := filepath.Join(st.dir, name)
	if err := st.before("create " + name); err != nil {
		return err
	}
	f, err := disk.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	err = st.steps(
		step{"write " + name, func() error { _, err := f.Write(data); return err }},
		step{"sync " + name, func() error { return disk.Sync(f) }},
		step{"rename " + name, func() error { return os.Rename(path+".new", path) }},
		step{"sync directory", func() error { return disk.SyncDir(st.dir) }},
	)
	return errors.Join(err, f.Close())
}

// step is something after which the process may die.
type step struct {
	what string
	do   func() error
}

// steps does one after the other, up to the first that fails.
func (st *store) steps(all ...step) error {
	for _, s := range all {
		if err := st.before(s.what); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return nil
}

// before announces a step to a test; nil everywhere else.
func (st *store) before(what string) error {
	if st == nil || st.step == nil {
		return nil
	}
	return st.step(what)
}

// room reports whether the budget allows bytes more.
func (st *store) room(bytes int64) error {
	if used, most := st.used.Load(), st.max.Load(); used+bytes > most {
		return fmt.Errorf("%w: %d bytes are needed, and %d of MaxDisk's %d are taken or reserved", ErrFull, bytes, used, most)
	}
	return nil
}

// create makes a new file and its directory entry durable.
func (st *store) create(name string) (*os.File, error) {
	if err := st.before("create " + filepath.Ext(name)); err != nil {
		return nil, err
	}
	f, err := disk.OpenFile(filepath.Join(st.dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if err := disk.SyncDir(st.dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func segmentName(u uuid, generation uint32) string {
	return fmt.Sprintf("%v.%d%s", u, generation, segmentSuffix)
}

// segments names, by UUID, the segments that the directory has a file of.
func (st *store) segments() (map[string]bool, error) {
	entries, err := os.ReadDir(st.dir)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, e := range entries {
		u, _, _ := strings.Cut(e.Name(), ".")
		names[u] = true
	}
	return names, nil
}

// writeSegment writes a closed segment as a whole to a new file, durably, and
// fills in h's identity.
func (st *store) writeSegment(h *head, blocks []byte) (path string, err error) {
	if err := st.room(int64(len(blocks))); err != nil {
		return "", err
	}
	return st.replaceSegment(h, blocks)
}

// replaceSegment is writeSegment for a file that takes the place of another one,
// which is deleted next: the budget has room for it already.
func (st *store) replaceSegment(h *head, blocks []byte) (path string, err error) {
	f, err := st.create(segmentName(h.uuid, h.generation))
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
		err = errors.Join(err, f.Close())
	}()
	if h.identity, err = disk.IdentityOf(f); err != nil {
		return "", err
	}
	// The head comes last: a file without one was never finished.
	err = st.steps(
		step{"write blocks", func() error { _, err := f.WriteAt(blocks, h.size()); return err }},
		step{"sync blocks", func() error { return disk.Sync(f) }},
		step{"write head", func() error { _, err := f.WriteAt(h.encode(), 0); return err }},
		step{"sync head", func() error { return disk.Sync(f) }},
	)
	if err != nil {
		return "", err
	}
	st.used.Add(h.size() + int64(len(blocks)))
	return f.Name(), nil
}

// remove deletes a file; what is not there counts as deleted.
func (st *store) remove(path string) {
	if st.before("remove "+filepath.Ext(path)) != nil {
		return // found again, and recognized, at the next Open
	}
	info, err := os.Lstat(path)
	if err == nil && os.Remove(path) == nil && strings.HasSuffix(path, segmentSuffix) {
		st.used.Add(-info.Size())
	}
}

// setAside keeps a copy of a damaged file before anything changes it.
func (st *store) setAside(path string) (copyPath string, err error) {
	dir := filepath.Join(st.dir, damagedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	copyPath = filepath.Join(dir, filepath.Base(path))
	for i := 1; ; i++ {
		if before, err := os.ReadFile(copyPath); err == nil && bytes.Equal(before, data) {
			return copyPath, nil // it was found damaged before
		}
		f, err := disk.OpenFile(copyPath, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if errors.Is(err, os.ErrExist) {
			copyPath = filepath.Join(dir, fmt.Sprintf("%s.%d", filepath.Base(path), i))
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(data)
		if err == nil {
			err = disk.Sync(f)
		}
		if err = errors.Join(err, f.Close(), disk.SyncDir(dir)); err != nil {
			return "", errors.Join(err, os.Remove(copyPath))
		}
		return copyPath, nil
	}
}
