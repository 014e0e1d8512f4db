package ledger

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/inprocess/meter/sink"
)

// Series is one thing being counted: a feature, a subject, dimensions. What
// counting touches lies in one cache line, and word is reached without a detour:
// at many series the cache misses are all that counting costs. Its name lies
// behind it, see allocateSeries.
type Series struct {
	seg     atomic.Pointer[segment]       // in which it counts; nil: not registered in the active one
	word    atomic.Pointer[atomic.Uint64] // this and the next two are valid while seg is the same before and after they are read
	spread  atomic.Pointer[spread]
	feature *Feature
	cell    atomic.Uint32 // the slot's other side, by number
	flags   atomic.Uint32
	next    atomic.Pointer[Series] // from a plain series on: those of the same subject with dimensions; changed under Ledger.totalsMu
	total   int64                  // sealed in Ledger.totalsMonth; guarded by Ledger.totalsMu
	nameLen uint32
}

const (
	quick       uint32 = 1 << iota // a Sum whose counts need no waiting for the disk
	spreading                      // it counts in several slots
	hot                            // writers collided on it before: spread it at once
	dimensioned                    // its name is an encoded key
	undivided                      // it counts quantities that one word must take as a whole: never spread
	evicted                        // no longer in the index; guarded by the shard's lock, with dimensions by the subject's, too
	linked                         // with dimensions: among those of its subject; guarded by the lock of the subject's shard
	tallied                        // its counts go through a Tally
	backdated                      // its counts are of a time that its name says, which is over
)

func newSeries(f *Feature, name string, flags uint32) *Series {
	s := allocateSeries(name)
	s.feature, s.nameLen = f, uint32(len(name))
	if f.kind == sink.Sum && !f.ledger.syncAlways {
		flags |= quick
	}
	s.flags.Store(flags)
	return s
}

func (s *Series) is(flag uint32) bool { return s.flags.Load()&flag != 0 }

func (s *Series) mark(flag uint32) { s.flags.Or(flag) }

func (s *Series) unmark(flag uint32) { s.flags.And(^flag) }

func (s *Series) index() *index {
	if s.is(dimensioned) {
		return s.feature.dimensioned
	}
	return s.feature.plain
}

// place is where the series counts; ok is false if it is not registered in the
// active segment.
func (s *Series) place() (p place, ok bool) {
	p.series = s
	for {
		p.seg = s.seg.Load()
		if p.seg == nil {
			return p, false
		}
		p.word, p.spread, p.cell = s.word.Load(), s.spread.Load(), s.cell.Load()
		if s.seg.Load() == p.seg {
			return p, true
		}
	}
}

// settle publishes where the series counts from now on. The caller holds the
// lock of the series' shard.
func (s *Series) settle(p place) {
	s.seg.Store(nil)
	s.word.Store(p.word)
	s.spread.Store(p.spread)
	s.cell.Store(p.cell)
	if p.spread == nil {
		s.unmark(spreading)
	} else {
		s.mark(spreading)
	}
	s.seg.Store(p.seg)
}

// leave makes the series forget a segment, so that it pins nothing of it.
func (s *Series) leave(seg *segment) {
	word, sp := s.word.Load(), s.spread.Load()
	if s.seg.CompareAndSwap(seg, nil) { // so these were the segment's
		s.word.CompareAndSwap(word, nil)
		s.spread.CompareAndSwap(sp, nil)
	}
}

// Add counts n of a Sum; 0 does nothing. An error means not counted, except ErrUnsynced.
func (s *Series) Add(n int64) error {
	if seg := s.seg.Load(); seg != nil && n > 0 && s.flags.Load()&(quick|spreading|tallied) == quick {
		if word := s.word.Load(); s.seg.Load() == seg {
			var res result
			if !seg.mapped { // here, not in a call: it would cost as much as the count
				res = tryAdd(word, uint64(n), seg.limit)
			} else {
				res = seg.tryAddMapped(word, uint64(n), seg.limit)
			}
			if res == counted {
				if s.is(tallied) { // only now
					s.missed(seg, n)
				}
				return nil
			}
		}
	}
	return s.addSlow(n)
}

func (s *Series) addSlow(n int64) error {
	if n > 0 && s.flags.Load()&(quick|spreading|tallied) == quick|spreading {
		if p, ok := s.place(); ok && p.add(uint64(n)) == counted {
			if s.is(tallied) {
				s.missed(p.seg, n)
			}
			return nil
		}
	}
	_, err := s.addTo(n, s.tally(), 0, false)
	return err
}

// add counts n by op.
func (s *Series) add(n int64, op func(*place) result) error {
	l := s.feature.ledger
	if err := s.feature.checkSum(n); err != nil {
		return err
	}
	if n == 0 {
		if l.closed.Load() {
			return ErrClosed
		}
		return nil
	}
	if uint64(n) > shareOf(l.maxQuantity) {
		s.undivide()
	}
	return s.count(op)
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
	set := (*place).setLast
	if s.feature.kind == sink.Max {
		set = (*place).setMax
	}
	return s.count(func(p *place) result { return set(p, uint64(level)) })
}

// count applies op to the series' place in the active segment, registering it
// there first if need be.
func (s *Series) count(op func(*place) result) error {
	l := s.feature.ledger
	for {
		p, ok := s.place()
		if !ok {
			var err error
			if p, err = s.register(); errors.Is(err, errLarge) {
				if err = l.endWindow(); err == nil {
					continue
				}
			}
			if err != nil {
				return err
			}
		}
		switch op(&p) {
		case counted:
			return l.commit(p.seg, p.cell)
		case retired:
			p.series.leave(p.seg)
		case faulted:
			l.poison(p.seg)
			p.series.stay(p)
			p.series.leave(p.seg)
		case collided:
			p.series.divide(p.seg)
		case passed:
			return errPassed
		case overflow:
			// The word is full. Another one for this series would be a second
			// record of one window, so the window ends early.
			if err := l.endWindow(); err != nil {
				return err
			}
		}
	}
}

// commit makes what was counted in a cell as safe as the policy says.
func (l *Ledger) commit(seg *segment, cell uint32) error {
	if !l.syncAlways {
		return nil
	}
	if seg.fallback {
		return fmt.Errorf("%w: there is no room on disk", ErrUnsynced)
	}
	return seg.journal.commit(cell)
}

// register gives the series a slot in the active segment.
func (s *Series) register() (place, error) {
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return s.registerIn(x)
}

// registerIn is register for who holds the lock of the shard.
func (s *Series) registerIn(x *index) (place, error) {
	if s.is(evicted) {
		// Counter handles outlive their place in the index.
		if twin := x.find(s.name()); twin != nil {
			if s.is(undivided) { // as for the quantity at hand
				twin.mark(undivided)
				twin.unmark(quick)
			}
			return twin.registerLocked()
		}
		if s.is(dimensioned) {
			_, subject, _, _ := decodeKey([]byte(s.name())) // that we have encoded
			s.feature.link(subject, s)
		}
		s.unmark(evicted)
		x.insert(s)
	}
	return s.registerLocked()
}

func (s *Series) registerLocked() (place, error) {
	l := s.feature.ledger
	for {
		seg := l.active.Load()
		if l.closed.Load() {
			return place{}, ErrClosed
		}
		if p, ok := s.place(); ok && p.seg == seg {
			return p, nil
		}
		p, err := seg.register(s)
		switch err {
		case nil:
			if before, ok := s.place(); ok {
				s.stay(before)
			}
			s.settle(p)
			return p, nil
		case errPoisoned:
			l.poison(seg)
		case errLarge:
			return place{}, err
		default:
			if seg.refusal != nil {
				return place{}, err
			}
			l.overflowed(seg, err)
		}
	}
}
