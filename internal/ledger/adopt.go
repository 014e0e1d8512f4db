package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/inprocess/meter/internal/disk"
)

// These are not the ledger's: they say what subjects may use by the counts beside them,
// and by settledFile that is nothing.
const (
	prepaidFile = "prepaid"
	settledFile = "prepaid-settled"
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
	if _, err := os.Lstat(filepath.Join(dir, prepaidFile)); err == nil {
		return errors.New("it may hold prepaid units, or owe some: have a process open it, declare their features, and shut down, which returns them")
	}
	orphan := &store{dir: dir, step: l.store.step}
	orphan.max.Store(math.MaxInt64)
	if err := orphan.checkFormat(); err != nil {
		return err
	}
	if err := l.sameFilesystem(dir); err != nil {
		return err
	}
	totalsData, err := readIfThere(filepath.Join(dir, totalsFile))
	if err != nil {
		return err
	}
	theirs := &totals{folded: make(map[uuid]bool), books: make(map[account]int64)}
	all, _ := theirs.decode(totalsData)
	segments, err := l.survey(dir)
	if err != nil {
		return err
	}
	if err := l.refuseCopy(segments, theirs.folded, totalsData); err != nil {
		return err
	}
	// In its own directory first, as if it were opened there: whatever fails from
	// here on leaves two directories that are each in order.
	waiting, err := l.recoverOrphan(orphan, segments, theirs.folded)
	if err != nil {
		return err
	}
	// Evidence before what it is about: a decision read later must not undo a newer
	// hold of ours.
	if err := l.adoptQuarantine(dir); err != nil {
		return err
	}
	bounds, err := readIfThere(filepath.Join(dir, periodsFile))
	if err != nil {
		return err
	}
	readPeriods(bounds, all)
	l.adoptPeriods(all)
	evidence := totalsData
	if len(evidence) == 0 && len(bounds) > 0 { // which may be like those of others
		evidence = append([]byte(filepath.Base(dir)), bounds...)
	}
	all.periods = l.adoptedUse(all, waiting)
	moved, err := l.moveSegments(dir, waiting)
	if err != nil {
		return err
	}
	all.highWater = theirs.highWater
	if err := l.adoptTotals(evidence, all, theirs.books, theirs.folded); err != nil {
		return err
	}
	if err := l.adoptRetained(orphan, len(theirs.books) > 0); err != nil {
		return err
	}
	for _, name := range []string{totalsFile, periodsFile, quarantineFile, sinceFile, settledFile, formatFile, lockFile} {
		l.store.remove(filepath.Join(dir, name))
	}
	os.Remove(dir) // stays if it holds retained or damaged files
	l.log.Info("meter: took over the directory of a dead process", "dir", dir, "segments", moved)
	return nil
}

// sameFilesystem finds out whether files can be renamed from dir to here, before
// anything is done about them.
func (l *Ledger) sameFilesystem(dir string) error {
	f, err := os.CreateTemp(dir, "adopt-*")
	if err != nil {
		return err
	}
	to := filepath.Join(l.store.dir, filepath.Base(f.Name()))
	err = errors.Join(f.Close(), os.Rename(f.Name(), to))
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%w (both directories must be on one filesystem)", err)
	}
	return os.Remove(to)
}

// refuseCopy keeps us from adopting what we have already: a copy of our own
// directory would be billed and booked twice.
func (l *Ledger) refuseCopy(segments map[uuid]*found, folded map[uuid]bool, totalsData []byte) error {
	sum := sha256.Sum256(totalsData)
	if l.totals.folded[uuid(sum[:16])] {
		return nil // adopted up to here before a process died
	}
	for u, f := range segments {
		if l.holds(u) && f.path != "" {
			return fmt.Errorf("it is a copy of this directory: segment %v is in both", u)
		}
	}
	for u := range folded {
		if l.totals.folded[u] {
			return fmt.Errorf("it is a copy of this directory: segment %v was settled in both", u)
		}
	}
	return nil
}

// recoverOrphan recovers the segments that are still in the orphan's directory, and
// leaves each of them durably in order there: merges finished, decisions carried
// out.
func (l *Ledger) recoverOrphan(orphan *store, segments map[uuid]*found, folded map[uuid]bool) (waiting []*sealed, err error) {
	for u, f := range segments {
		if l.holds(u) {
			f.removeJournals(orphan) // its segment's new file made them needless
			delete(segments, u)
		}
	}
	if waiting, err = l.recoverAll(orphan, segments, folded); err != nil {
		return nil, err
	}
	if err := l.checkAddresses(waiting); err != nil {
		return nil, err
	}
	if err := l.finishMerges(waiting); err != nil {
		return nil, err
	}
	data, err := readIfThere(filepath.Join(orphan.dir, quarantineFile))
	if err != nil {
		return nil, err
	}
	decisions, _, _ := readQuarantine(data)
	if err := l.applyDecisions(waiting, decisions); err != nil {
		return nil, err
	}
	for _, sd := range waiting {
		sd.mu.Lock()
		err = errors.Join(err, sd.flush())
		sd.mu.Unlock()
	}
	return waiting, err
}

// moveSegments moves recovered segments here. What was moved is ours, also if
// another one then fails.
func (l *Ledger) moveSegments(dir string, waiting []*sealed) (moved int, err error) {
	for _, sd := range waiting {
		to := filepath.Join(l.store.dir, filepath.Base(sd.path))
		err = l.store.steps(step{"move segment", func() error { return os.Rename(sd.path, to) }})
		if err != nil {
			break
		}
		sd.mu.Lock()
		sd.store, sd.path = l.store, to
		if info, err := os.Stat(to); err == nil {
			l.store.used.Add(info.Size())
		}
		sd.mu.Unlock()
		moved++
	}
	ours := waiting[:moved]
	err = errors.Join(err, disk.SyncDir(l.store.dir), disk.SyncDir(dir))
	for _, sd := range ours {
		l.noteSealed(sd)
	}
	l.mu.Lock()
	l.insert(ours...)
	l.mu.Unlock()
	for _, sd := range ours {
		l.wake(sd)
	}
	return moved, err
}

// adoptTotals adds the orphan's totals to ours, once: the fold is named by what
// its files say.
func (l *Ledger) adoptTotals(data []byte, all *fold, books map[account]int64, folded map[uuid]bool) error {
	if len(data) == 0 {
		return nil
	}
	sum := sha256.Sum256(data)
	all.segment, all.books = uuid(sum[:16]), books
	if l.totals.folded[all.segment] {
		return nil
	}
	l.tidying.Lock()
	defer l.tidying.Unlock()
	// Each of their segments by name, too: a copy of the orphan may turn up.
	folds := []*fold{all}
	for u := range folded {
		folds = append(folds, newFold(u))
	}
	if err := l.totals.write(folds); err != nil {
		return err
	}
	l.mu.Lock()
	l.totals.apply(folds)
	l.mu.Unlock()
	for k, u := range all.usages {
		l.noteUsage([]byte(k.key), k.kind, k.month, when{}, u.at, u.quantity)
	}
	l.addUse(all.periods)
	return nil
}

// adoptQuarantine appends those of the orphan's lines to ours that are not there
// yet: an adoption may take several tries, and a decision that is read behind a
// newer line would undo it.
func (l *Ledger) adoptQuarantine(dir string) error {
	theirs, err := readIfThere(filepath.Join(dir, quarantineFile))
	if err != nil {
		return err
	}
	ours, err := readIfThere(filepath.Join(l.store.dir, quarantineFile))
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for line := range bytes.Lines(ours) {
		known[string(line)] = true
	}
	var fresh []byte
	for line := range bytes.Lines(theirs) {
		if bytes.HasSuffix(line, []byte("\n")) && !known[string(line)] { // a torn line was never acted on
			fresh = append(fresh, line...)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := l.quarantine.appendRaw(fresh); err != nil {
		return err
	}
	_, reasons, _ := readQuarantine(fresh)
	l.quarantine.learn(reasons)
	return nil
}

// adoptRetained keeps what the orphan retained, if we retain anything.
func (l *Ledger) adoptRetained(orphan *store, folded bool) error {
	if l.retain <= 0 {
		return nil
	}
	data, err := readIfThere(filepath.Join(orphan.dir, sinceFile))
	if err != nil {
		return err
	}
	since, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil && folded {
		since = time.Now().Unix() // it retained nothing, and settled something
	}
	if since > l.store.since.Load() {
		if err := l.store.keptSince(since); err != nil {
			return err
		}
	}
	kept := filepath.Join(l.store.dir, retainedDir)
	if err := os.MkdirAll(kept, 0o700); err != nil {
		return err
	}
	for _, f := range orphan.retained() {
		if err := os.Rename(f.path, filepath.Join(kept, filepath.Base(f.path))); err != nil {
			return err
		}
	}
	os.Remove(filepath.Join(orphan.dir, retainedDir))
	return nil
}

func readIfThere(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
