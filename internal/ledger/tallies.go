package ledger

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// tallies are a feature's subjects whose use is bounded. Those of others cost
// nothing: their counts are summed up when they are asked for.
type tallies struct {
	making   sync.Mutex  // held while one is made or forgotten
	any      atomic.Bool // there was one
	bySeries sync.Map    // *Series, all of the subject's, to *Tally
	marks    atomic.Pointer[marks]
	over     atomic.Int64 // units counted beyond quotas
}

// Over is how many units were counted beyond quotas, by this process.
func (f *Feature) Over() int64 { return f.tallies.over.Load() }

// Reserve holds n of the subject's quota for a call that Release ends. known is the
// subject's tally, as far as the caller remembers one; nil is fine. It is refused where
// a hard limit is in the way: n would pass it, or none is left for a call that wants any.
func (f *Feature) Reserve(known *Tally, subject string, q *Quota, n int64, wants bool) (t *Tally, a Admission, err error) {
	for t = known; ; t = nil {
		if t == nil {
			if t, err = f.tally(subject); err != nil {
				return nil, Refused, err
			}
		}
		a, learned := t.reserve(q, n, wants)
		if a == forgotten {
			continue
		}
		if learned {
			f.ledger.keep(t)
		}
		return t, a, nil
	}
}

// Look is how the subject would stand with a quota, and changes nothing.
func (f *Feature) Look(subject string, q Quota) Standing {
	glass := &Tally{feature: f, plain: f.plain.find(subject)}
	if t := f.Tally(subject); t != nil {
		t.mu.Lock()
		glass.plain, glass.footing = t.plain, t.footing
		defer t.mu.Unlock() // so that nothing is counted meanwhile
	} else {
		glass.month.counted += glass.unseen()
	}
	glass.adopt(&q, f.ledger.began.Load())
	return glass.standing()
}

// Tallied reports whether any subject has a tally, or had one.
func (f *Feature) Tallied() bool { return f.tallies.any.Load() }

// Tally is the subject's tally, nil if it has none.
func (f *Feature) Tally(subject string) *Tally {
	if !f.Tallied() {
		return nil
	}
	if s := f.plain.find(subject); s != nil {
		return s.tally()
	}
	return nil
}

// tally is the subject's, made if there is none.
func (f *Feature) tally(subject string) (*Tally, error) {
	if t := f.Tally(subject); t != nil {
		return t, nil
	}
	if _, err := f.Series(subject, nil); err != nil {
		return nil, err
	}
	f.tallies.making.Lock()
	defer f.tallies.making.Unlock()
	if t := f.Tally(subject); t != nil {
		return t, nil
	}
	f.tallies.any.Store(true)
	t := &Tally{feature: f, footing: footing{quota: Quota{Limit: -1}}}
	// Whoever finds the series marked waits for the lock before it counts. Who had
	// begun to count by then finds the mark behind its count, and has it read again.
	t.mu.Lock()
	defer t.mu.Unlock()
	f.markTallied(subject, t)
	for s := t.plain.next.Load(); s != nil; s = s.next.Load() {
		f.tallies.bySeries.Store(s, t)
		s.mark(tallied)
	}
	t.month.counted += t.unseen()
	return t, nil
}

// markTallied finds or adds the subject's series, so that it can't be forgotten
// before it is marked. The caller holds t.mu.
func (f *Feature) markTallied(subject string, t *Tally) {
	sh := f.plain.shard(f.plain.hash(subject))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := f.plain.find(subject)
	if s == nil {
		s = newSeries(f, subject, 0)
		f.plain.insert(s)
	}
	t.plain = s // before anybody finds t
	f.tallies.bySeries.Store(s, t)
	s.mark(tallied)
}

// tally is what the series counts through; nil: nothing.
func (s *Series) tally() *Tally {
	if s.is(evicted) {
		// A handle outlives the series' place in the index; see register.
		if twin := s.index().find(s.name()); twin != nil {
			s = twin
		} else if s.is(dimensioned) { // it will be its subject's again
			_, subject, _, _ := decodeKey([]byte(s.name())) // that we have encoded
			if s = s.feature.plain.find(subject); s == nil {
				return nil
			}
		}
	}
	if !s.is(tallied) {
		return nil
	}
	t, _ := s.feature.tallies.bySeries.Load(s)
	found, _ := t.(*Tally)
	return found
}

// inherit has a series that was just made for a subject count through its tally.
func (s *Series) inherit(plain *Series) {
	if t := plain.tally(); t != nil {
		s.feature.tallies.bySeries.Store(s, t)
		s.mark(tallied)
	}
}

// addTo is Add through t, nil for none, for a call that holds held of it and may end
// with that. done says that t knows.
func (s *Series) addTo(n int64, t *Tally, held int64, ends bool) (done bool, err error) {
	if t != nil && n > 0 && s.is(quick) {
		var missed *segment
		if p, ok := s.place(); ok && t.add(&p, n, held, ends, &missed) == counted {
			if missed != nil {
				s.missed(missed, n)
			}
			return true, nil
		}
	}
	return s.addBy(n, t, held, ends, time.Time{})
}

// addBy is addTo for what was used at a time, zero for now: errPassed if the running
// window begins behind it.
func (s *Series) addBy(n int64, t *Tally, held int64, ends bool, at time.Time) (done bool, err error) {
	var missed *segment // in which it was counted past a tally; nil: none
	err = s.add(n, func(p *place) (res result) {
		if p.seg.begins(at) {
			return passed
		}
		if t == nil {
			if res = p.add(uint64(n)); res == counted {
				missed = p.seg
			}
			return res
		}
		res = t.add(p, n, held, ends, &missed)
		done = done || res == counted
		return res
	})
	if missed != nil {
		s.missed(missed, n)
	}
	return done, err
}

// add counts n at p, and gives back held, in one moment.
func (t *Tally) add(p *place, n, held int64, ends bool, missed **segment) result {
	t.mu.Lock()
	defer t.mu.Unlock()
	res := p.add(uint64(n))
	if res == counted {
		if t.gone {
			*missed = p.seg
		}
		t.give(held, ends) // first, so that whoever is told of the count sees it once
		t.count(p.series.when(p.seg), n)
	}
	return res
}

// count notes n units. The caller holds mu.
func (t *Tally) count(at when, n int64) {
	t.roll(at.counted)
	before := t.used()
	t.month.note(at.used, n)
	t.own.note(at, n)
	t.noteEver(at, n)
	if at.counted < t.own.since {
		t.late(at, n)
	}
	t.noted(before)
}

// late counts what comes to the period in a window that was retired, and not sealed, when
// it was learned. The caller holds mu.
func (t *Tally) late(at when, n int64) {
	if n > 0 && at.counted < t.own.since && at.used >= t.month.start && t.own.start <= t.month.start {
		t.own.base, t.own.counted = add(t.own.base, n), add(t.own.counted, n)
		t.learned++
	}
}

// noted tells of what was counted, before which so much was used. The caller holds mu.
func (t *Tally) noted(before int64) {
	if limit := t.quota.Limit; limit >= 0 {
		over := func(counted int64) int64 { return max(0, add(t.quota.Used, counted)-limit) }
		if more := over(t.used()) - over(before); more > 0 {
			t.feature.tallies.over.Add(more)
		}
		t.tell()
	}
}

// forgetIdle forgets tallies of subjects that used nothing in the running periods, have
// none to come that is known of, and no call running, so that their series can be
// forgotten, too.
func (f *Feature) forgetIdle() {
	f.tallies.making.Lock()
	defer f.tallies.making.Unlock()
	for s, t := range f.tallies.bySeries.Range {
		s, t := s.(*Series), t.(*Tally)
		t.mu.Lock()
		if s == t.plain && !t.gone && t.idle() {
			t.gone = true
			for s := t.plain; s != nil; s = s.next.Load() {
				t.leave(s)
			}
		}
		if t.gone {
			t.leave(s) // which may have come to it since
		}
		t.mu.Unlock()
	}
}

// idle reports whether nothing would be lost with the tally. The caller holds mu.
func (t *Tally) idle() bool {
	at := t.feature.ledger.began.Load()
	t.roll(at)
	return t.running == 0 && t.month.counted == 0 && t.ever.end == 0 && !t.own.outlives(at) && t.plain.seg.Load() == nil
}

// leave has a series count through no tally, unless it has another one. The caller holds
// making.
func (t *Tally) leave(s *Series) {
	if t.feature.tallies.bySeries.CompareAndDelete(s, t) {
		s.unmark(tallied)
	}
}

// Subjects are those whose series are remembered.
func (f *Feature) Subjects() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f.plain.shards {
			stopped := false
			f.plain.shards[i].each(func(s *Series) { stopped = stopped || !yield(s.name()) })
			if stopped {
				return
			}
		}
	}
}
