package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/disk"
)

// found is everything in a directory that speaks of one segment.
type found struct {
	head        *head
	path        string // of the segment file; "": only a journal
	headDamaged bool
	copied      bool // its file is not the one it was written to
	journals    []string
	bytes       int64    // of all its segment files
	stale       []string // lower generations
}

// survey reads the directory's files.
func (l *Ledger) survey(dir string) (map[uuid]*found, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("meter: Dir: %w", err)
	}
	segments := make(map[uuid]*found)
	of := func(u uuid) *found {
		if segments[u] == nil {
			segments[u] = &found{}
		}
		return segments[u]
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || slices.Contains([]string{lockFile, formatFile, totalsFile, periodsFile, quarantineFile, sinceFile}, e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f, err := disk.OpenFile(path, os.O_RDONLY)
		if err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		data, size, identity, err := readStart(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		h, intact, err := decodeHead(data)
		switch {
		case errors.Is(err, ErrFormat):
			return nil, fmt.Errorf("%w (%s)", err, path)
		case err == nil:
			of(h.uuid).bytes += size
			f, copied := of(h.uuid), differs(h.identity, identity)
			switch {
			case f.path == "":
			case f.copied && !copied || f.copied == copied && f.head.generation < h.generation:
				f.stale = append(f.stale, f.path)
			default:
				f.stale = append(f.stale, path)
				continue
			}
			f.head, f.path, f.headDamaged, f.copied = h, path, !intact, copied
			continue
		case !errors.Is(err, errNotASegment):
			l.surrender(path, err)
			continue
		}
		u, err := decodePreamble(data)
		switch {
		case errors.Is(err, ErrFormat):
			return nil, fmt.Errorf("%w (%s)", err, path)
		case err == nil:
			of(u).journals = append(of(u).journals, path)
		case !errors.Is(err, errNotAJournal):
			l.surrender(path, err)
		case strings.HasSuffix(path, segmentSuffix) && blank(path, size, int64(len(data))),
			strings.HasSuffix(path, journalSuffix) && blank(path, size, 2*journalChunk):
			os.Remove(path) // died before its head was written: nothing was counted in it
		case strings.HasSuffix(path, segmentSuffix), strings.HasSuffix(path, journalSuffix):
			l.surrender(path, errors.New("its head is unreadable"))
		}
	}
	return segments, nil
}

// surrender gives a file up that nobody can read: a copy of it is all that stays.
func (l *Ledger) surrender(path string, why error) {
	if l.setAside(path, why) {
		os.Remove(path)
	}
}

// blank reports whether a file of at most these bytes holds nothing: reserved, and
// never written.
func blank(path string, size, most int64) bool {
	if size > most {
		return false
	}
	data, err := os.ReadFile(path)
	return err == nil && allZero(data)
}

// readStart reads as much of a file as a head can take.
func readStart(f *os.File) (data []byte, size int64, id disk.Identity, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, id, err
	}
	if id, err = disk.IdentityOf(f); err != nil {
		return nil, 0, id, err
	}
	data = make([]byte, min(info.Size(), headSize+2*maxInputs*int64(len(uuid{}))))
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		err = nil
	}
	return data[:n], info.Size(), id, err
}

func differs(wrote, is disk.Identity) bool {
	return wrote.Inode != 0 && (wrote.Inode != is.Inode || wrote.Birth != 0 && is.Birth != 0 && wrote.Birth != is.Birth)
}
