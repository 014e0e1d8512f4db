package meter

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

// maxInstance leaves each of several processes a second of its own in every minute.
const maxInstance = 59

// faults collects everything that is wrong with a Config, so that the operator
// sees it at once.
type faults []error

func (f *faults) add(format string, args ...any) {
	*f = append(*f, fmt.Errorf("meter: Config."+format, args...))
}

// validate expects defaults to be filled in.
func (c *Config) validate() error {
	var f faults
	if c.Dir == "" {
		f.add("Dir: required; meter.InMemory accepts that a crash loses counts")
	}
	if _, err := filepath.Match(c.Adopt, ""); err != nil {
		f.add("Adopt: %q: %w", c.Adopt, err)
	}
	if c.Adopt != "" && c.Dir == InMemory {
		f.add("Adopt: needs a directory to adopt into, and Dir is meter.InMemory")
	}
	if c.Instance < 0 || c.Instance > maxInstance {
		f.add("Instance: %d: must be 0 to %d", c.Instance, maxInstance)
	}
	if c.MaxDisk < 0 {
		f.add("MaxDisk: %d: must not be negative", c.MaxDisk)
	}
	f.duration("EventWindow", c.EventWindow)
	f.duration("LockWait", c.LockWait, named{"meter.NoWait", NoWait})
	f.duration("Retain", c.Retain)
	f.duration("Sync", c.Sync, named{"meter.SyncAlways", SyncAlways}, named{"meter.SyncNever", SyncNever})
	f.duration("Window", c.Window, named{"meter.OnFlush", OnFlush})
	if c.Window > 0 && c.Window < time.Second {
		f.add("Window: %v: must be at least 1s", c.Window)
	}
	if c.Checker != nil && isNil(c.Checker) {
		f.add("Checker: a nil %T; leave the field empty for no check", c.Checker)
	} else if v, ok := c.Checker.(sink.Validator); ok {
		if err := asked("Validate", v.Validate); err != nil {
			f.add("Checker: %w", err)
		}
	}
	c.validateRoutes(&f)
	return errors.Join(f...)
}

// named is a negative duration that means something.
type named struct {
	name  string
	value time.Duration
}

func (f *faults) duration(field string, d time.Duration, except ...named) {
	if d >= 0 {
		return
	}
	var names []string
	for _, n := range except {
		if d == n.value {
			return
		}
		names = append(names, n.name)
	}
	text := "must not be negative"
	if len(names) > 0 {
		text += ", except " + strings.Join(names, " and ")
	}
	f.add("%s: %v: %s", field, d, text)
}

func (c *Config) validateRoutes(f *faults) {
	if len(c.Sinks) > ledger.MaxRoutes {
		f.add("Sinks: %d routes, at most %d", len(c.Sinks), ledger.MaxRoutes)
	}
	first := map[string]int{}
	for i, r := range c.Sinks {
		if why := badLabel(r.Name, maxRoute); why != "" {
			f.add("Sinks[%d].Name: %s", i, why)
		} else if j, twice := first[r.Name]; twice {
			f.add("Sinks[%d].Name: %q is taken by Sinks[%d]", i, r.Name, j)
		} else {
			first[r.Name] = i
		}
		if isNil(r.Sink) {
			f.add("Sinks[%d] (%s): Sink: required", i, shown(r.Name))
		} else if v, ok := r.Sink.(sink.Validator); ok {
			if err := asked("Validate", v.Validate); err != nil {
				f.add("Sinks[%d] (%s): %w", i, shown(r.Name), err)
			}
		}
	}
}

// asked calls code of the user's, and makes an error of its panic.
func asked(method string, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v", method, p)
		}
	}()
	return call()
}

// isNil also finds a nil pointer or function inside the interface: it would
// panic later, on a goroutine where nobody can recover it.
func isNil(s any) bool {
	if s == nil {
		return true
	}
	switch v := reflect.ValueOf(s); v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Slice:
		return v.IsNil()
	}
	return false
}
