package ledger

import (
	"context"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/inprocess/meter/sink"
)

// Series is one thing being counted: a feature, a subject, dimensions. What
// counting touches lies in one cache line, and word is reached without a detour:
// at many series the cache misses are all that counting costs.
type Series struct {
	seg     atomic.Pointer[segment]       // in which word lies; nil: not registered in the active one
	word    atomic.Pointer[atomic.Uint64] // valid while seg is the same before and after it is read
	cell    atomic.Pointer[cell]          // the slot's other side
	feature *Feature
	text    *byte // of its name in the feature's index: the subject, or the encoded key if it has dimensions
	textLen uint32
	flags   atomic.Uint32
	next    atomic.Pointer[Series] // from a plain series on: those of the same subject with dimensions
	total   int64                  // sealed in Ledger.totalsMonth; guarded by Ledger.totalsMu
}

const (
	quick       uint32 = 1 << iota // a Sum whose counts need no waiting for the disk
	spreading                      // it counts in several slots
	hot                            // writers collided on it before: spread it at once
	dimensioned                    // its name is an encoded key
	undivided                      // it counts quantities that one word must take as a whole: never spread
	evicted                        // no longer in the index; guarded by the shard's lock
)

func newSeries(f *Feature, name string, flags uint32) *Series {
	s := &Series{feature: f, text: unsafe.StringData(name), textLen: uint32(len(name))}
	if f.kind == sink.Sum && !f.ledger.syncAlways {
		flags |= quick
	}
	s.flags.Store(flags)
	return s
}

func (s *Series) name() string { return unsafe.String(s.text, s.textLen) }

func (s *Series) is(flag uint32) bool { return s.flags.Load()&flag != 0 }

func (s *Series) mark(flag uint32) { s.flags.Or(flag) }

func (s *Series) unmark(flag uint32) { s.flags.And(^flag) }

func (s *Series) index() *index {
	if s.is(dimensioned) {
		return s.feature.dimensioned
	}
	return s.feature.plain
}

// settle publishes where the series counts from now on. The caller holds the
// lock of the series' shard.
func (s *Series) settle(seg *segment, c *cell) {
	s.seg.Store(nil)
	s.word.Store(c.word)
	s.cell.Store(c)
	if c.spread.Load() == nil {
		s.unmark(spreading)
	}
	s.seg.Store(seg)
}

// leave makes the series forget a segment, so that it pins nothing.
func (s *Series) leave(c *cell) {
	s.seg.CompareAndSwap(c.seg, nil)
	s.cell.CompareAndSwap(c, nil)
}

// Add counts n of a Sum; 0 does nothing. An error means not counted, except ErrUnsynced.
func (s *Series) Add(n int64) error {
	if seg := s.seg.Load(); seg != nil && n > 0 && s.flags.Load()&(quick|spreading) == quick {
		if word := s.word.Load(); s.seg.Load() == seg && seg.add(word, uint64(n)) == counted {
			return nil
		}
	}
	return s.addSlow(n)
}

func (s *Series) addSlow(n int64) error {
	if n > 0 && s.flags.Load()&(quick|spreading) == quick|spreading {
		if c := s.cell.Load(); c != nil && c.add(uint64(n)) == counted {
			return nil
		}
	}
	l := s.feature.ledger
	switch {
	case s.feature.kind != sink.Sum:
		return fmt.Errorf("%w: feature %q is a %v: use Set", ErrKind, s.feature.name, s.feature.kind)
	case n < 0:
		return fmt.Errorf("%w: %d is negative", ErrQuantity, n)
	case n > l.maxQuantity:
		return fmt.Errorf("%w: %d is more than the %d that one record can carry", ErrQuantity, n, l.maxQuantity)
	case n == 0:
		if l.closed.Load() {
			return ErrClosed
		}
		return nil
	}
	if uint64(n) > shareOf(l.maxQuantity) {
		s.undivide()
	}
	return s.count(func(c *cell) result { return c.add(uint64(n)) })
}

// Set notes the level of a Max or Last. An error means not counted, except ErrUnsynced.
func (s *Series) Set(level int64) error {
	l := s.feature.ledger
	switch {
	case s.feature.kind == sink.Sum:
		return fmt.Errorf("%w: feature %q is a sum: use Add", ErrKind, s.feature.name)
	case level < 0:
		return fmt.Errorf("%w: %d is negative", ErrQuantity, level)
	case level > l.maxQuantity:
		return fmt.Errorf("%w: %d is more than the %d that one record can carry", ErrQuantity, level, l.maxQuantity)
	}
	set := (*cell).setLast
	if s.feature.kind == sink.Max {
		set = (*cell).setMax
	}
	return s.count(func(c *cell) result { return set(c, uint64(level)) })
}

// count applies op to the series' cell in the active segment, registering it
// there first if need be.
func (s *Series) count(op func(*cell) result) error {
	l := s.feature.ledger
	for {
		c := s.cell.Load()
		if c == nil {
			var err error
			if c, err = s.register(); err != nil {
				return err
			}
		}
		switch op(c) {
		case counted:
			if !l.syncAlways {
				return nil
			}
			if c.seg.fallback {
				return fmt.Errorf("%w: there is no room on disk", ErrUnsynced)
			}
			return c.seg.journal.commit(c)
		case retired:
			s.leave(c)
		case faulted:
			l.poison(c.seg)
			s.leave(c)
		case collided:
			s.spread(c)
		case overflow:
			// The word is full. Another one for this series would be a second
			// record of one window, so the window ends early.
			if err := l.Rotate(context.Background()); err != nil {
				return err
			}
		}
	}
}

// register gives the series a slot in the active segment.
func (s *Series) register() (*cell, error) {
	x := s.index()
	hash := x.hash(s.name())
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.is(evicted) {
		// Counter handles outlive their place in the index.
		if twin := x.find(s.name()); twin != nil {
			return twin.registerLocked()
		}
		s.unmark(evicted)
		sh.insert(hash, s)
	}
	return s.registerLocked()
}

func (s *Series) registerLocked() (*cell, error) {
	l := s.feature.ledger
	for {
		seg := l.active.Load()
		if l.closed.Load() {
			return nil, ErrClosed
		}
		if c := s.cell.Load(); c != nil && c.seg == seg {
			return c, nil
		}
		c, err := seg.register(s)
		switch err {
		case nil:
			s.settle(seg, c)
			return c, nil
		case errPoisoned:
			l.poison(seg)
		default:
			if seg.refusal != nil {
				return nil, err
			}
			l.overflowed(seg, err)
		}
	}
}
