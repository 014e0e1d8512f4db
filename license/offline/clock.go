package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
	"github.com/inprocess/meter/internal/disk"
)

// clock is the time, which never goes back, and the licenses that go with it.
type clock struct {
	path string // of the state; "": none

	loaded  bool
	latest  time.Time           // that it surely was
	signed  map[int64]time.Time // license ID → SignDate of the newest
	written time.Time
	dirty   bool  // signed has news
	fault   error // of the last write
}

// state is the file. It names licenses by their numbers, and holds no keys.
type state struct {
	Latest int64           `json:"latest"` // Unix seconds
	Signed map[int64]int64 `json:"signed"` // license ID → Unix seconds
}

const maxState = 16 << 20

var errDamaged = errors.New("is no state of licenses: restore it, or remove it to begin anew")

// load reads the state once.
//
// Errors: it is there and can't be used: what it knows must not be lost by an
// accident.
func (c *clock) load() error {
	if c.loaded {
		return nil
	}
	c.signed = map[int64]time.Time{}
	if err := c.merge(); err != nil {
		return err
	}
	c.loaded = true
	return nil
}

// merge takes what the file knows and c does not: another process may share it.
func (c *clock) merge() error {
	if c.path == "" {
		return nil
	}
	f, err := disk.OpenFile(c.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return err
	}
	s, err := decodeState(data)
	if err != nil {
		return fmt.Errorf("%s %w", c.path, err)
	}
	c.latest = later(c.latest, time.Unix(s.Latest, 0))
	for id, at := range s.Signed {
		c.signed[id] = later(c.signed[id], time.Unix(at, 0))
	}
	return nil
}

func decodeState(data []byte) (s state, err error) {
	if json.Unmarshal(data, &s) != nil || s.Latest <= 0 {
		return state{}, errDamaged
	}
	return s, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// advance returns the time, which is at least wall.
//
// Errors: ErrClock.
func (c *clock) advance(wall time.Time) (time.Time, error) {
	wall = wall.Round(0) // the monotonic clock would not see that it was set back
	if c.latest.Sub(wall) > signed.ClockSkew {
		err := fmt.Errorf("%w: it shows %s, and it is %s or later", signed.ErrClock, stamp(wall), stamp(c.latest))
		if c.path != "" {
			err = fmt.Errorf("%w; if it was wrong before, and is right now, remove %s", err, c.path)
		}
		return time.Time{}, err
	}
	c.latest = later(c.latest, wall)
	return c.latest, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// see takes the date of a license that was let in.
func (c *clock) see(l *License) {
	if l.ID > 0 && l.SignDate.After(c.signed[l.ID]) {
		c.signed[l.ID] = l.SignDate
		c.dirty = true
	}
}

// save writes the state if there is news, and at most once a minute.
func (c *clock) save(now time.Time) {
	since := now.Sub(c.written)
	if c.path == "" || since >= 0 && since < time.Minute && !(c.dirty && c.fault == nil) {
		return
	}
	c.fault = c.write(now)
}

// write writes the state, so that a crash leaves the old one or the new one.
func (c *clock) write(now time.Time) error {
	if c.path == "" || c.latest.IsZero() { // nothing is known yet
		return nil
	}
	c.written = now
	if err := c.merge(); err != nil {
		return err
	}
	s := state{Latest: c.latest.Unix(), Signed: map[int64]int64{}}
	for id, at := range c.signed {
		s.Signed[id] = at.Unix()
	}
	data, err := json.Marshal(s)
	if err == nil {
		err = replace(c.path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the state: %w", err)
	}
	c.dirty = false
	return nil
}

func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = disk.Sync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return disk.SyncDir(filepath.Dir(path))
}
