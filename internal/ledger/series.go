package ledger

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"github.com/inprocess/meter/internal/disk"
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

func (s *Series) mark(flag uint32)   { s.flags.Or(flag) }
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

// cell is what a segment knows of one of its slots. It keeps the segment's
// memory mapped for as long as anybody can reach it.
type cell struct {
	word   *atomic.Uint64 // in the segment
	seg    *segment
	series *Series
	spread atomic.Pointer[spread]
	// journaled is the word that the journal holds. Guarded by the journal's lock.
	journaled uint64
	block     uint32
	primary   uint32 // of a stripe: the block of the slot that it counts for; else its own block
}

func (c *cell) stripe() bool { return c.primary != c.block }

// spread holds the further slots of a series that several processors count at
// once. They fold into one record.
type spread struct {
	stripes []*cell
	words   []*atomic.Uint64 // theirs
	mask    uint64
}

// idle reports whether less was counted in all of a window than one slot takes
// without trouble.
func (sp *spread) idle(c *cell) bool {
	const few = 10_000
	word, _ := c.load()
	sum := word & wordCount
	for _, stripe := range sp.stripes {
		word, _ := stripe.load()
		sum += word & wordCount
	}
	return sum < few
}

// result of trying to count in a cell.
type result uint8

const (
	faulted  result = iota // the memory is gone; nothing was counted
	counted                // done
	retired                // the slot is sealed: count in the active segment
	collided               // another writer was faster
	overflow               // the sum would pass the limit
)

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
			if l.syncAlways {
				return c.seg.journal.commit(c)
			}
			return nil
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
	l := s.feature.ledger
	x := s.index()
	hash := x.hash(s.name())
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l.closed.Load() {
		return nil, ErrClosed
	}
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

// spread gives a series that writers collide on several slots.
func (s *Series) spread(c *cell) {
	if s.flags.Or(hot)&hot != 0 {
		return
	}
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// As for registering: sealing waits for this lock, and later is too late.
	if c.spread.Load() == nil && s.feature.ledger.active.Load() == c.seg {
		c.seg.spread(c)
	}
}

const maxStripes = 32

func stripesWanted() int {
	n := 2
	for n < runtime.GOMAXPROCS(0)*4 && n < maxStripes {
		n *= 2
	}
	return n
}

// add counts n in c or in one of its stripes.
func (c *cell) add(n uint64) result {
	if sp := c.spread.Load(); sp != nil && n <= c.seg.stripeLimit() {
		// Goroutines that run at the same time have stacks of their own: the
		// address of a local tells them apart without asking the scheduler.
		var here byte
		at := uint64(uintptr(unsafe.Pointer(&here))) >> 10
		word := sp.words[at*0x9E3779B97F4A7C15>>56&sp.mask]
		if res := c.seg.tryAdd(word, n, c.seg.stripeLimit()); res != overflow && res != collided {
			return res
		}
	}
	if c.series.is(hot) { // whatever the stripes could not take
		return c.seg.guard(func() result { return addStubborn(c.word, n, c.seg.limit) })
	}
	return c.seg.add(c.word, n)
}

// add counts n in one of the segment's words.
func (seg *segment) add(word *atomic.Uint64, n uint64) result {
	return seg.tryAdd(word, n, seg.limit)
}

func (seg *segment) tryAdd(word *atomic.Uint64, n, limit uint64) result {
	if !seg.mapped {
		return tryAdd(word, n, limit)
	}
	return seg.tryAddMapped(word, n, limit)
}

func (seg *segment) tryAddMapped(word *atomic.Uint64, n, limit uint64) (res result) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if res == faulted {
			recoverFault(recover())
		}
	}()
	res = tryAdd(word, n, limit)
	runtime.KeepAlive(seg)
	return res
}

// addStubborn counts however many writers it meets.
func addStubborn(word *atomic.Uint64, n, limit uint64) result {
	for {
		if res := tryAdd(word, n, limit); res != collided {
			return res
		}
	}
}

func tryAdd(word *atomic.Uint64, n, limit uint64) result {
	old := word.Load()
	if old&wordSealed != 0 {
		return retired
	}
	sum := old&wordCount + n
	if sum > limit {
		return overflow
	}
	if word.CompareAndSwap(old, sum|wordSet) {
		return counted
	}
	return collided
}

func (c *cell) setMax(level uint64) result {
	return c.seg.guard(func() result {
		for {
			word := c.word.Load()
			if word&wordSealed != 0 {
				return retired
			}
			if word&wordSet != 0 && word&wordCount >= level {
				return counted
			}
			if c.word.CompareAndSwap(word, level|wordSet) {
				return counted
			}
		}
	})
}

func (c *cell) setLast(level uint64) result {
	return c.seg.guard(func() result {
		for {
			word := c.word.Load()
			if word&wordSealed != 0 {
				return retired
			}
			if c.word.CompareAndSwap(word, level|wordSet) {
				return counted
			}
		}
	})
}

// guard runs op, which touches the segment's memory.
func (seg *segment) guard(op func() result) (res result) {
	if !seg.mapped {
		return op()
	}
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if res == faulted {
			recoverFault(recover())
		}
	}()
	res = op()
	runtime.KeepAlive(seg)
	return res
}

// recoverFault lets memory faults pass and raises everything else again.
func recoverFault(r any) {
	if r == nil {
		return
	}
	if _, fault := disk.IsFault(r); !fault {
		panic(r)
	}
}

// load reads the word; ok is false when the memory is gone.
func (c *cell) load() (word uint64, ok bool) {
	res := c.seg.guard(func() result {
		word = c.word.Load()
		return counted
	})
	return word, res == counted
}

// seal makes the word final.
func (c *cell) seal() (word uint64, ok bool) {
	res := c.seg.guard(func() result {
		for {
			word = c.word.Load()
			if word&wordSealed != 0 || c.word.CompareAndSwap(word, word|wordSealed) {
				word |= wordSealed
				return counted
			}
		}
	})
	return word, res == counted
}
