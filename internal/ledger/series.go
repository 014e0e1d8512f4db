package ledger

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// Series is one thing being counted: a feature, a subject, dimensions.
type Series struct {
	cell    atomic.Pointer[cell] // where it counts in the active segment; nil: nowhere yet
	feature *Feature
	name    string                 // its name in the feature's index: the subject, or the encoded key if it has dimensions
	dims    *dimensioned           // nil: no dimensions
	next    atomic.Pointer[Series] // of the subject's plain series: its dimensioned ones
	month   int32                  // of total; guarded by Ledger.totalsMu
	hot     atomic.Bool            // writers collided on it before: spread it at once
	evicted bool                   // no longer in the index; guarded by the shard's lock
	total   int64                  // sealed in month; guarded by Ledger.totalsMu
}

type dimensioned struct {
	subject string
	values  map[string]string
}

func (s *Series) subject() string {
	if s.dims != nil {
		return s.dims.subject
	}
	return s.name
}

func (s *Series) index() *index {
	if s.dims != nil {
		return s.feature.dimensioned
	}
	return s.feature.plain
}

// cell is a series' place in one segment. It keeps the segment's memory mapped
// for as long as anybody can reach it.
type cell struct {
	word   *atomic.Uint64 // in the segment
	seg    *segment
	series *Series
	spread atomic.Pointer[spread]
	// journaled is the word that the journal holds. Guarded by the journal's lock.
	journaled uint64
	block     uint32
	primary   uint32 // of a stripe: the block of the slot that it counts for
	mapped    bool   // the word lies in a file, and touching it can fault
	stripe    bool
}

// spread holds the further slots of a series that several processors count at
// once. They fold into one record.
type spread struct {
	stripes []*cell
	mask    uintptr
}

// result of trying to count in a cell.
type result uint8

const (
	faulted  result = iota // the memory is gone; nothing was counted
	counted                // done
	retired                // the slot is sealed: count in the active segment
	collided               // another writer was faster, again and again
	overflow               // the sum would pass the limit
)

// collisions before a series is spread over several slots.
const collisions = 3

// Add counts n of a Sum; 0 does nothing. An error means not counted, except ErrUnsynced.
func (s *Series) Add(n int64) error {
	if c := s.cell.Load(); c != nil && n > 0 && s.feature.kind == sink.Sum && !s.feature.ledger.syncAlways {
		if n <= s.feature.ledger.maxQuantity && c.add(uint64(n)) == counted {
			return nil
		}
	}
	return s.addSlow(n)
}

func (s *Series) addSlow(n int64) error {
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
			s.cell.CompareAndSwap(c, nil)
		case faulted:
			l.poison(c.seg)
			s.cell.CompareAndSwap(c, nil)
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
	hash := x.hash(s.name)
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l.closed.Load() {
		return nil, ErrClosed
	}
	if s.evicted {
		// Counter handles outlive their place in the index.
		if twin := x.find(s.name); twin != nil {
			return twin.registerLocked()
		}
		s.evicted = false
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
			s.cell.Store(c)
			return c, nil
		case errPoisoned:
			l.poison(seg)
		default:
			return nil, err
		}
	}
}

// spread gives a series that writers collide on several slots.
func (s *Series) spread(c *cell) {
	if c.stripe || c.spread.Load() != nil || !s.hot.CompareAndSwap(false, true) {
		s.hot.Store(true)
		return
	}
	c.seg.spread(c)
}

const maxStripes = 32

func stripesWanted() int {
	n := 2
	for n < runtime.GOMAXPROCS(0)*2 && n < maxStripes {
		n *= 2
	}
	return n
}

// add counts n in c or in one of its stripes.
func (c *cell) add(n uint64) result {
	if sp := c.spread.Load(); sp != nil {
		// Goroutines that run at the same time have stacks of their own: the
		// address of a local tells them apart without asking the scheduler.
		var here byte
		at := uintptr(unsafe.Pointer(&here))
		c = sp.stripes[(at>>10^at>>16)&sp.mask]
	}
	if !c.mapped {
		return c.addWord(n)
	}
	return c.addMapped(n)
}

func (c *cell) addMapped(n uint64) (res result) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if res == faulted {
			recoverFault(recover())
		}
	}()
	res = c.addWord(n)
	runtime.KeepAlive(c)
	return res
}

// limit is what the word may grow to. Stripes get a share, so that together they
// stay within what one record can carry.
func (c *cell) limit() uint64 {
	if c.stripe {
		return uint64(c.seg.maxQuantity) / (2 * maxStripes)
	}
	return uint64(c.seg.maxQuantity)
}

func (c *cell) addWord(n uint64) result {
	limit := c.limit()
	for range collisions {
		word := c.word.Load()
		if word&wordSealed != 0 {
			return retired
		}
		sum := word&wordCount + n
		if sum > limit {
			return overflow
		}
		if c.word.CompareAndSwap(word, sum|wordSet) {
			return counted
		}
	}
	if c.stripe || c.series.hot.Load() {
		return c.addStubborn(n, limit)
	}
	return collided
}

// addStubborn counts however many writers it meets.
func (c *cell) addStubborn(n, limit uint64) result {
	for {
		word := c.word.Load()
		if word&wordSealed != 0 {
			return retired
		}
		sum := word&wordCount + n
		if sum > limit {
			return overflow
		}
		if c.word.CompareAndSwap(word, sum|wordSet) {
			return counted
		}
	}
}

func (c *cell) setMax(level uint64) result {
	return c.guarded(func() result {
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
	return c.guarded(func() result {
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

func (c *cell) guarded(op func() result) (res result) {
	if !c.mapped {
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
	runtime.KeepAlive(c)
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
	res := c.guarded(func() result {
		word = c.word.Load()
		return counted
	})
	return word, res == counted
}

// seal makes the word final.
func (c *cell) seal() (word uint64, ok bool) {
	res := c.guarded(func() result {
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

// monthOf numbers calendar months in UTC.
func monthOf(second int64) int32 {
	t := time.Unix(second, 0).UTC()
	return int32(t.Year())*12 + int32(t.Month()) - 1
}

func monthBounds(month int32) (start, end time.Time) {
	start = time.Date(int(month/12), time.Month(month%12)+1, 1, 0, 0, 0, 0, time.UTC)
	return start, start.AddDate(0, 1, 0)
}

// note adds a sealed quantity to the running month. The caller holds totalsMu.
func (s *Series) note(month int32, kind sink.Kind, quantity int64) {
	if month < s.month {
		return
	}
	if month > s.month {
		s.month, s.total = month, 0
	}
	s.total = combine(kind, s.total, quantity)
}

// combine adds a later quantity to an earlier one.
func combine(kind sink.Kind, earlier, later int64) int64 {
	switch kind {
	case sink.Max:
		return max(earlier, later)
	case sink.Last:
		return later
	}
	if earlier > math.MaxInt64-later {
		return math.MaxInt64
	}
	return earlier + later
}
