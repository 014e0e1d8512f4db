package filesink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const suffixTime = "20060102T150405.000000000Z"

// rotate renames the file, of which every byte is on disk, and begins another.
// With an error nothing is lost: ready goes on from whatever is there.
func (s *Sink) rotate() error {
	name, err := s.nextName()
	if err != nil {
		return err
	}
	// Windows renames no open file.
	if err := s.closeFile(); err != nil {
		return fmt.Errorf("filesink: rotate: %w", err)
	}
	s.renamed = true
	if err := s.os.rename(s.path, name); err != nil {
		return fmt.Errorf("filesink: rotate: %w", err)
	}
	s.ids.renamed(name)
	s.ids.forget(func(name string) bool {
		_, err := os.Lstat(name)
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := s.open(); err != nil {
		return err
	}
	return s.syncDir()
}

// nextName sorts after all names there are, also when the clock was set back.
func (s *Sink) nextName() (string, error) {
	names, err := s.rotated()
	if err != nil {
		return "", err
	}
	at := time.Now().UTC()
	if len(names) > 0 {
		newest := names[len(names)-1]
		last, err := time.Parse(suffixTime, newest[len(s.path)+1:])
		if err != nil {
			return "", fmt.Errorf("filesink: rotate: %s has no time as its suffix: move it away: %w", newest, err)
		}
		if !at.After(last) {
			at = last.Add(1)
		}
	}
	return s.path + "." + at.Format(suffixTime), nil
}
