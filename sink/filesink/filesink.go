// Package filesink writes records as JSON lines, one object a record, each ID
// once: for billing from files, for audits, and beside another sink as its copy.
//
// # Lines
//
// Every line ends in a newline and has exactly these fields, in this order:
//
//	{"id":"…","feature":"tax-report","subject":"cus_1","dimensions":{"region":"eu"},"kind":"sum","quantity":3,"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":1}
//
// dimensions is {} when there are none. start and end are RFC 3339 in UTC, end
// is exclusive. kind is "sum", "max" or "last".
//
// # Reading them
//
// [Config].Path is being written. When it passes [Config].MaxSize it is renamed
// to Path + "." + its UTC time, such as usage.jsonl.20260301T120000.000000000Z,
// and never written again. These names sort by age. Consume the renamed files;
// whoever follows Path itself must skip by ID, for after a failed write its end
// is taken back and the same records may be written once more.
//
// After a power cut a line may stand there that is no JSON: it was never
// acknowledged, so skip it.
//
// # Deleting them
//
// The files are the memory of which IDs were written. A file may be deleted, or
// moved away, once none of its records can be sent again: when meter has run
// since, and nothing of the route is pending or in doubt. A day is ample where
// meter runs. Don't edit the files, and keep logrotate and its like away.
//
// An ID in memory costs about 40 bytes, for as long as its file stands there:
// what was deleted is forgotten at the next rotation or start. A start reads all
// files, some hundred MB a second, and writes Path again.
package filesink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
)

// Config of a [Sink].
//
// Concurrency: a plain value.
type Config struct {
	// Path of the file being written. Required. Its directory must exist, and
	// neither it nor a renamed file may be a symbolic link. Beside it stand the
	// renamed files, and Path + ".lock".
	Path string
	// LockWait is how long Validate waits for another process to let go of Path, as
	// in a rolling deploy. 0: 30 s. NoWait: not at all.
	LockWait time.Duration
	// MaxSize of a file in bytes. One call's records stay together, so a file
	// passes it only when a single call writes more. 0: 64 MiB.
	MaxSize int64
}

// NoWait as [Config].LockWait: a lock that is taken is an error at once.
const NoWait time.Duration = -1

const (
	defaultLockWait = 30 * time.Second
	defaultMaxSize  = 64 << 20
)

// Sink appends to one file. New files have mode 0600.
//
// One process at a time: a lock on Path + ".lock" keeps others out, on Linux,
// macOS and the BSDs. Elsewhere, Windows included, nothing does; see to it.
//
// Concurrency: safe; calls take turns.
type Sink struct {
	config Config
	path   string // absolute
	fault  error  // of finding path
	os     system

	mu      sync.Mutex
	closed  bool
	lock    *os.File // nil: not held
	loaded  bool     // the renamed files have been read
	file    file     // nil: not open
	size    int64    // of file, all of it on disk
	renamed bool     // the directory has changes that are not synced
	ids     index
}

var (
	_ sink.Sink      = (*Sink)(nil)
	_ sink.Limiter   = (*Sink)(nil)
	_ sink.Combiner  = (*Sink)(nil)
	_ sink.Validator = (*Sink)(nil)
	_ sink.Addressed = (*Sink)(nil)
)

// New returns a sink that opens its file at [Sink.Validate] or at the first
// [Sink.Deliver]. A relative path counts from the present working directory.
func New(config Config) *Sink {
	s := &Sink{config: config, os: realSystem{}, ids: newIndex()}
	if config.Path != "" {
		s.path, s.fault = filepath.Abs(config.Path)
	}
	if s.config.LockWait == 0 {
		s.config.LockWait = defaultLockWait
	}
	if s.config.MaxSize == 0 {
		s.config.MaxSize = defaultMaxSize
	}
	return s
}

// Validate opens the file, and reads those that are there.
//
// Blocking: for LockWait, and for reading all files.
// Errors: every field that is wrong, joined; a missing directory, a symbolic
// link, a file of another process, what the system says.
func (s *Sink) Validate() error {
	if err := s.faults(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready(s.config.LockWait)
}

func (s *Sink) faults() error {
	var faults []error
	if s.config.Path == "" {
		faults = append(faults, errors.New("filesink: Config.Path is empty: name the file to write"))
	}
	if s.fault != nil {
		faults = append(faults, fmt.Errorf("filesink: Config.Path: %w", s.fault))
	}
	if s.config.MaxSize < 0 {
		faults = append(faults, fmt.Errorf("filesink: Config.MaxSize is %d: use a number of bytes, or 0 for 64 MiB", s.config.MaxSize))
	}
	if s.config.LockWait < 0 && s.config.LockWait != NoWait {
		faults = append(faults, fmt.Errorf("filesink: Config.LockWait is %v: use a time to wait, 0 for 30s, or filesink.NoWait", s.config.LockWait))
	}
	return errors.Join(faults...)
}

// Limits says that an ID counts once for ever, and up to 1000 records a call:
// each call costs one fsync.
func (s *Sink) Limits() sink.Limits {
	return sink.Limits{MaxBatch: 1000, DedupeWindow: sink.Forever}
}

// Kinds are all three: a line says how its quantity combines.
func (s *Sink) Kinds() []sink.Kind { return []sink.Kind{sink.Sum, sink.Max, sink.Last} }

// Address is the absolute path; "" without one.
func (s *Sink) Address() string { return s.path }

// Close closes the file and lets other processes have it. Everything
// acknowledged is on disk already. Afterwards Deliver returns
// sink.ErrNotApplied. A second Close does nothing.
//
// Blocking: while a Deliver runs.
// Errors: what the system says; the sink is closed all the same.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	err := s.closeFile()
	if s.lock != nil {
		err = errors.Join(err, unlock(s.lock), s.lock.Close())
		s.lock = nil
	}
	if err != nil {
		return fmt.Errorf("filesink: close: %w", err)
	}
	return nil
}

func (s *Sink) closeFile() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
