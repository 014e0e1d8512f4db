package filesink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/inprocess/meter/sink"
)

// Deliver appends the records whose ID no file has, and syncs the file. When it
// returns nil they are on disk.
//
// Blocking: for one fsync, and at a rotation two more. ctx is asked before
// anything is written; a disk that hangs can't be interrupted.
// Errors: sink.ErrNotApplied when nothing was recorded: ctx has ended, the file
// can't be opened or extended, the disk is full. sink.ErrRejected, in a
// *sink.BatchError, for a record of an unknown kind, one whose ID is not 1 to 64
// bytes of [0-9a-z-], whose texts are not UTF-8, or whose line would pass 64 KiB.
// Another error when the sync failed: what is on disk then, nobody knows.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return notApplied(fmt.Errorf("filesink: %w", err))
	}
	if err := s.ready(0); err != nil {
		return notApplied(err)
	}
	errs := make([]error, len(records))
	var lines bytes.Buffer
	fresh := map[id]bool{} // what stands in lines
	for i, r := range records {
		key := idOf([]byte(r.ID))
		if s.ids.has(key) || fresh[key] {
			continue
		}
		if err := encode(&lines, r); err != nil {
			errs[i] = fmt.Errorf("filesink: record %s: %w: %w", r.ID, err, sink.ErrRejected)
			continue
		}
		fresh[key] = true
	}
	if err := s.write(lines.Bytes()); err != nil {
		for i, r := range records {
			if fresh[idOf([]byte(r.ID))] {
				errs[i] = err
			}
		}
		fresh = nil
	}
	for key := range fresh {
		s.ids.add(key)
	}
	if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return &sink.BatchError{Errs: errs}
	}
	return nil
}

func notApplied(err error) error { return fmt.Errorf("%w: %w", sink.ErrNotApplied, err) }

// write appends lines and has them on disk, or tells what became of them.
func (s *Sink) write(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if s.size > 0 && s.size+int64(len(lines)) > s.config.MaxSize {
		if err := s.rotate(); err != nil {
			return notApplied(err)
		}
	}
	if _, err := s.file.WriteAt(lines, s.size); err != nil {
		err = fmt.Errorf("filesink: write %s: %w", s.path, err)
		if undo := s.cut(); undo != nil {
			return s.distrust(fmt.Errorf("%w; and it can't be taken back: %w", err, undo))
		}
		return notApplied(err)
	}
	if err := s.file.Sync(); err != nil {
		return s.distrust(fmt.Errorf("filesink: sync %s: %w", s.path, err))
	}
	s.size += int64(len(lines))
	return nil
}

// cut takes back what a failed write left. When it returns nil the disk has
// nothing of it.
func (s *Sink) cut() error {
	if info, err := s.file.Stat(); err == nil && info.Size() == s.size {
		return nil // it left nothing: a write appends, or fails as a whole
	}
	if err := s.file.Truncate(s.size); err != nil {
		return err
	}
	return s.file.Sync()
}

// distrust closes the file after err. Nobody knows what of it is on disk, and
// its next sync could lie; the next call opens it as it finds it.
func (s *Sink) distrust(err error) error { return errors.Join(err, s.closeFile()) }
