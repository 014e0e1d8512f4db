package offline

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
	"github.com/inprocess/meter/license"
)

// files is what was read.
type files struct {
	at     time.Time           // zero: never
	last   map[string]*License // by file: the last that could be read
	byKey  map[license.Key]found
	faults []error // of files, and of listing them
	blind  []error // those faults of which nobody knows whose license they hide
}

// found is the newest license of a key, and why it does not count.
type found struct {
	license *License
	name    string // of its file, fit to be shown
	err     error
}

func (f *files) due(now time.Time, every time.Duration) bool {
	return f.at.IsZero() || every != NoReload && now.Sub(f.at) >= every
}

func (f *files) unread() error { return errors.Join(f.blind...) }

// list returns the names of the license files.
func (c *Checker) list() ([]string, error) {
	entries, err := fs.ReadDir(c.cfg.Files, ".")
	if err != nil {
		return nil, fmt.Errorf("listing the license files%s: %w", c.where(), bare(err))
	}
	var names []string
	for _, e := range entries {
		if ok, _ := path.Match(c.cfg.Pattern, e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// where names the directory, for errors, if Files is one: os.DirFS is a string.
func (c *Checker) where() string {
	if v := reflect.ValueOf(c.cfg.Files); v.Kind() == reflect.String {
		return " in " + shown(v.String())
	}
	return ""
}

// read reads all files. What can't be read stays as it was: it may be being written.
func (c *Checker) read(now time.Time) {
	was := c.files
	is := files{at: now, last: map[string]*License{}, byKey: map[license.Key]found{}}
	names, err := c.list()
	if err != nil {
		c.files.at, c.files.faults, c.files.blind = now, []error{err}, []error{err}
		return
	}
	for _, name := range names {
		l, err := c.open(name)
		if err != nil {
			err = fmt.Errorf("%s: %w", shown(name), err)
			is.faults = append(is.faults, err)
			if errors.Is(err, ErrProduct) {
				continue
			}
			is.blind = append(is.blind, err)
			if l = was.last[name]; l == nil {
				continue
			}
		}
		is.last[name] = l
		if other, ok := is.byKey[l.Key]; !ok || other.license.SignDate.Before(l.SignDate) {
			is.byKey[l.Key] = found{license: l, name: strings.ReplaceAll(shown(name), l.Key.Reveal(), "[key]")}
		}
	}
	for _, f := range is.byKey { // the license server's clock can't be set back here
		c.clock.latest = later(c.clock.latest, f.license.SignDate)
	}
	for key, f := range is.byKey {
		f.err = c.guard.Admit(f.license, c.newest(f.license), c.clock.latest)
		if f.err == nil {
			c.clock.see(f.license)
		} else if before, ok := was.byKey[key]; ok && before.err == nil && errors.Is(f.err, ErrReplayed) {
			is.faults = append(is.faults, fmt.Errorf("%s: %w", f.name, f.err))
			f = before // an older file was put in its place
		}
		is.byKey[key] = f
	}
	c.files = is
}

// newest is the date of the newest license of l's key that is known.
func (c *Checker) newest(l *License) time.Time {
	newest := c.guard.Newest(l.Key)
	if kept := c.clock.signed[l.ID]; kept.After(newest) {
		return kept
	}
	return newest
}

func (c *Checker) open(name string) (*License, error) {
	info, err := fs.Stat(c.cfg.Files, name)
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return nil, fmt.Errorf("%w: it is no regular file", ErrMalformed)
	}
	f, err := c.cfg.Files.Open(name)
	if err != nil {
		return nil, bare(err)
	}
	data, err := io.ReadAll(io.LimitReader(f, signed.MaxSize+1))
	_ = f.Close() // only read
	if err != nil {
		return nil, bare(err)
	}
	l, err := c.keys.Open(data)
	if err != nil {
		return nil, err
	}
	return l, l.BindProduct(c.cfg.ProductID)
}

// bare is err without the path, which may hold a key.
func bare(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// keyLike is what a license key looks like, also in the names that Cryptolens's own
// license server gives to files.
var keyLike = regexp.MustCompile(`[A-Za-z0-9]{4,}(-[A-Za-z0-9]{4,}){2,}`)

// shown is a file's name, fit for an error.
func shown(name string) string { return fmt.Sprintf("%q", keyLike.ReplaceAllString(name, "[key]")) }
