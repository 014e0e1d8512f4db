package ledger

import (
	"cmp"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/disk"
)

// retire moves a settled segment out of the way of Open, for disputes, or
// deletes it.
func (st *store) retire(path string, retain time.Duration) error {
	if retain <= 0 {
		st.remove(path)
		return nil
	}
	dir, now := filepath.Join(st.dir, retainedDir), time.Now()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chtimes(path, now, now); err != nil { // retained from now on
		return err
	}
	return os.Rename(path, filepath.Join(dir, filepath.Base(path)))
}

// retainedFile is a settled segment that is kept.
type retainedFile struct {
	path string
	at   time.Time // when it was settled
}

// retained lists what is kept, longest settled first.
func (st *store) retained() (files []retainedFile) {
	dir := filepath.Join(st.dir, retainedDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // there is none
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, retainedFile{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b retainedFile) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.path, b.path)) })
	return files
}

// dropRetained deletes retained segments: those older than retain, and then the
// oldest until bytes more fit into the budget.
func (st *store) dropRetained(retain time.Duration, bytes int64) error {
	st.dropping.Lock() // a new window may need room while old files go
	defer st.dropping.Unlock()
	for _, f := range st.retained() {
		if time.Since(f.at) <= retain && st.room(bytes) == nil {
			return nil
		}
		if err := st.forget(f.path); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes a retained segment, and remembers first that what began with it
// or before is not complete any more.
func (st *store) forget(path string) error {
	if second := st.since.Load(); second != keepsNothing {
		h, err := readHead(path)
		if err == nil {
			second = max(second, h.start+1)
			if h.dated && h.merged {
				second = max(second, h.end)
			}
		} else {
			second = max(second, time.Now().Unix()) // whatever it was
		}
		if err := st.keptSince(second); err != nil {
			return err
		}
	}
	st.remove(path)
	return nil
}

// keepsNothing as the second since which everything is retained: Retain is 0.
const keepsNothing = math.MaxInt64

// keptSince notes, durably, from which second on everything is retained.
func (st *store) keptSince(second int64) error {
	st.since.Store(second)
	return st.writeFile(sinceFile, strconv.AppendInt(nil, second, 10))
}

// loadSince finds out from which second on everything is retained. folded says
// that segments were folded before.
func (st *store) loadSince(retain time.Duration, folded bool, now int64) error {
	path := filepath.Join(st.dir, sinceFile)
	data, err := os.ReadFile(path)
	switch {
	case retain <= 0:
		st.since.Store(keepsNothing)
		if err == nil {
			err = os.Remove(path) // from here on nothing is kept
		}
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	case err == nil:
		second, err := strconv.ParseInt(string(data), 10, 64)
		if err != nil {
			second = now // damaged: better too late than too early
		}
		st.since.Store(second)
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	case folded:
		return st.keptSince(now)
	}
	return st.keptSince(0)
}

// readHead reads the head of a segment file.
func readHead(path string) (*head, error) {
	f, err := disk.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, _, _, err := readStart(f)
	if err != nil {
		return nil, err
	}
	h, _, err := decodeHead(data)
	return h, err
}

// retainedBytes sums up what is retained.
func (st *store) retainedBytes() (n int64) {
	for _, f := range st.retained() {
		if info, err := os.Lstat(f.path); err == nil {
			n += info.Size()
		}
	}
	return n
}
