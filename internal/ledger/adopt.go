package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/inprocess/meter/internal/disk"
)

// adoptOrphans takes over the directories that Adopt names and whose owners are
// dead. Each file is taken alone and speaks for itself, so that a death in
// between leaves every count in exactly one of the two directories.
func (l *Ledger) adoptOrphans() {
	if l.adopt == "" || l.store == nil {
		return
	}
	dirs, err := filepath.Glob(l.adopt)
	if err != nil {
		l.health.set("adopt", fmt.Errorf("meter: Adopt: %w", err))
		return
	}
	own, err := os.Stat(l.store.dir)
	if err != nil {
		return
	}
	var failed error
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || os.SameFile(own, info) {
			continue
		}
		if err := l.adoptDir(dir); err != nil {
			failed = errors.Join(failed, fmt.Errorf("meter: can't adopt %s: %w", dir, err))
		}
	}
	if failed != nil {
		l.health.set("adopt", failed)
	} else {
		l.health.clear("adopt")
	}
}

func (l *Ledger) adoptDir(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err != nil {
		return nil // no ledger, or adopted already
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	lock, err := disk.Lock(ended, filepath.Join(dir, lockFile))
	if errors.Is(err, disk.ErrLocked) {
		return nil // alive
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	orphan := &store{dir: dir, max: l.store.max}
	if err := orphan.checkFormat(); err != nil {
		return err
	}
	totalsData, err := readIfThere(filepath.Join(dir, totalsFile))
	if err != nil {
		return err
	}
	theirs := &totals{folded: make(map[uuid]bool), books: make(map[account]int64)}
	all, _ := theirs.decode(totalsData)
	for u := range theirs.folded {
		l.totals.folded[u] = true // their files are leftovers
	}
	moved, err := l.moveSegments(dir)
	if err != nil {
		return err
	}
	if err := l.adoptTotals(dir, totalsData, all, theirs.books); err != nil {
		return err
	}
	if err := l.adoptQuarantine(dir); err != nil {
		return err
	}
	for _, name := range []string{totalsFile, quarantineFile, formatFile, lockFile} {
		os.Remove(filepath.Join(dir, name))
	}
	os.Remove(dir) // stays if it holds retained or damaged files
	l.log.Info("meter: took over the directory of a dead process", "dir", dir, "segments", moved)
	return nil
}

// moveSegments recovers the orphan's segments where they are and then moves them.
func (l *Ledger) moveSegments(dir string) (moved int, err error) {
	segments, err := l.survey(dir)
	if err != nil {
		return 0, err
	}
	here := make(map[uuid]bool)
	for _, sd := range l.sealedNow() {
		here[sd.head.uuid] = true
	}
	for u, f := range segments {
		if here[u] && f.path != "" {
			return 0, fmt.Errorf("it is a copy of what is here: segment %v", u)
		}
	}
	var all []*sealed
	for u, f := range segments {
		if here[u] {
			f.removeAll(l.store) // a journal that its segment's new file made needless
			continue
		}
		sd, err := l.recoverSegment(f)
		if err != nil {
			return 0, err
		}
		if sd == nil {
			continue
		}
		sd.unload()
		all = append(all, sd)
		if filepath.Dir(sd.path) == l.store.dir {
			continue // it had no file of its own, and got one here
		}
		to := filepath.Join(l.store.dir, filepath.Base(sd.path))
		if err := os.Rename(sd.path, to); err != nil {
			return 0, fmt.Errorf("%w (both directories must be on one filesystem)", err)
		}
		sd.path = to
	}
	if err := errors.Join(syncDir(l.store.dir), syncDir(dir)); err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.insert(all...)
	l.mu.Unlock()
	if err := l.finishMerges(); err != nil {
		return 0, err
	}
	for _, sd := range all {
		l.wake(sd)
	}
	return len(all), nil
}

// adoptTotals adds the orphan's totals to ours, once: the fold is named by what
// the file says.
func (l *Ledger) adoptTotals(dir string, data []byte, all *fold, books map[account]int64) error {
	if len(data) == 0 {
		return nil
	}
	sum := sha256.Sum256(data)
	all.segment, all.books = uuid(sum[:16]), books
	if !l.totals.folded[all.segment] {
		if err := l.totals.write([]*fold{all}); err != nil {
			return err
		}
		l.mu.Lock()
		l.totals.apply([]*fold{all})
		l.mu.Unlock()
		for k, u := range all.usages {
			l.noteUsage([]byte(k.key), k.kind, k.month, u.at, u.quantity)
		}
	}
	return os.Remove(filepath.Join(dir, totalsFile))
}

// adoptQuarantine appends the orphan's lines to ours and applies decisions that
// its process died before.
func (l *Ledger) adoptQuarantine(dir string) error {
	path := filepath.Join(dir, quarantineFile)
	data, err := readIfThere(path)
	if err != nil || len(data) == 0 {
		return err
	}
	if data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	if err := l.quarantine.appendRaw(data); err != nil {
		return err
	}
	decisions, _ := readQuarantine(data)
	if err := l.applyDecisions(decisions); err != nil {
		return err
	}
	return os.Remove(path)
}

func readIfThere(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
