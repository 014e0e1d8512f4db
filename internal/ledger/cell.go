package ledger

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// cell is what a segment knows of one of its slots. There are as many as series,
// so it is small: where the slot lies follows from its block.
type cell struct {
	series *Series
	// journaled is the word that the journal holds. Guarded by the journal's lock.
	journaled uint64
	block     uint32
	primary   uint32 // of a stripe: the block of the slot that it counts for, marked if it is an event's; else its own block
}

// eventCell marks the primary of an event's cell. Blocks have lower numbers.
const eventCell = 1 << 31

func (c *cell) stripe() bool { return c.of() != c.block }

func (c *cell) event() bool { return c.primary&eventCell != 0 }

// fellFrom reports whether a word is less than it was, which none is whose memory is
// there.
func (c *cell) fellFrom(before, now uint64) bool {
	return before&wordSet != 0 && (now&wordSet == 0 || c.series.feature.kind != sink.Last && now&wordCount < before&wordCount)
}

// of is the block of the slot that the cell counts for.
func (c *cell) of() uint32 { return c.primary &^ eventCell }

// spread holds the further slots of a series that several processors count at
// once. They fold into one record.
type spread struct {
	stripes []*cell
	words   []*atomic.Uint64 // theirs
	mask    uint64
}

// place is where a series counts. It keeps the segment's memory mapped for as long
// as anybody can reach it.
type place struct {
	series *Series // of the slot
	seg    *segment
	word   *atomic.Uint64 // of the series' own slot
	spread *spread        // nil: none
	cell   uint32         // of its own slot, by number
}

// coldSpread is how much one slot takes in a window without trouble: a series
// that counted less is not spread any more.
const coldSpread = 10_000

// result of trying to count in a cell.
type result uint8

const (
	faulted  result = iota // the memory is gone; nothing was counted
	counted                // done
	retired                // the slot is sealed: count in the active segment
	collided               // another writer was faster
	overflow               // the sum would pass the limit
	passed                 // the window is not the one that was meant
)

// divide gives a series that writers collide on in seg several slots.
func (s *Series) divide(seg *segment) {
	if s.flags.Or(hot)&hot != 0 {
		return
	}
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// As for registering: sealing waits for this lock, and later is too late.
	if p, ok := s.place(); ok && p.seg == seg && p.spread == nil && !s.is(undivided) && s.feature.ledger.active.Load() == seg {
		if sp := seg.divide(s, seg.cell(p.cell).block); sp != nil {
			s.spread.Store(sp)
			s.mark(spreading)
		}
	}
}

// undivide has the series count in one word, beside its events, from the next
// window on, and always with its shard's lock held.
func (s *Series) undivide() {
	if s.is(undivided) {
		return
	}
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock() // as for spreading: none is under way behind it
	s.mark(undivided)
	s.unmark(quick)
	sh.mu.Unlock()
}

const maxStripes = 32

func stripesWanted() int {
	n := 2
	for n < runtime.GOMAXPROCS(0)*4 && n < maxStripes {
		n *= 2
	}
	return n
}

// add counts n in the series' own slot or in one of its stripes.
func (p *place) add(n uint64) result {
	s, seg := p.series, p.seg
	if sp := p.spread; sp != nil && n <= seg.stripeLimit() {
		// Goroutines that run at the same time have stacks of their own: the
		// address of a local tells them apart without asking the scheduler.
		var here byte
		at := uint64(uintptr(unsafe.Pointer(&here))) >> 10
		word := sp.words[at*0x9E3779B97F4A7C15>>56&sp.mask]
		if res := seg.tryAdd(word, n, seg.stripeLimit()); res != overflow && res != collided {
			return res
		}
	}
	if s.is(undivided) {
		return p.addWhole(s, n)
	}
	if s.is(hot) { // whatever the stripes could not take
		return seg.guard(func() result { return addStubborn(p.word, n, seg.limit) })
	}
	return seg.tryAdd(p.word, n, seg.limit)
}

// addWhole counts n for an undivided series: its own word may take all that its
// events leave. It gets no stripes any more, and that it has none is certain as
// long as it counts in this segment.
func (p *place) addWhole(s *Series, n uint64) result {
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock() // as whoever counts an event
	defer sh.mu.Unlock()
	limit := p.seg.limit
	if s.spread.Load() == nil && s.seg.Load() == p.seg {
		limit = p.seg.most
		if r := p.seg.room(p.seg.cell(p.cell).block); r != nil {
			limit -= r.events.Load()
		}
	}
	return p.seg.guard(func() result { return addStubborn(p.word, n, limit) })
}

// tryAdd counts n in one of the segment's words.
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

func (p *place) setMax(level uint64) result {
	return p.seg.guard(func() result {
		for {
			word := p.word.Load()
			if word&wordSealed != 0 {
				return retired
			}
			if word&wordSet != 0 && word&wordCount >= level {
				return counted
			}
			if p.word.CompareAndSwap(word, level|wordSet) {
				return counted
			}
		}
	})
}

func (p *place) setLast(level uint64) result {
	return p.seg.guard(func() result {
		for {
			word := p.word.Load()
			if word&wordSealed != 0 {
				return retired
			}
			if p.word.CompareAndSwap(word, level|wordSet) {
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

// load reads a slot's word; ok is false when the memory is gone.
func (seg *segment) load(c *cell) (word uint64, ok bool) {
	res := seg.guard(func() result {
		word = seg.word(c.block).Load()
		return counted
	})
	return word, res == counted
}

// seal makes a slot's word final.
func (seg *segment) seal(c *cell) (word uint64, ok bool) {
	res := seg.guard(func() result {
		at := seg.word(c.block)
		for {
			word = at.Load()
			if word&wordSealed != 0 || at.CompareAndSwap(word, word|wordSealed) {
				word |= wordSealed
				return counted
			}
		}
	})
	return word, res == counted
}
