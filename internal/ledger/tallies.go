package ledger

import "sync"

// tallies are a feature's subjects whose use is bounded. Those of others cost
// nothing: their counts are summed up when they are asked for.
type tallies struct {
	making   sync.Mutex // held while one is made or forgotten
	bySeries sync.Map   // *Series, all of the subject's, to *Tally
}

// Reserve holds n of the subject's quota for a call that Release ends. With ok
// false it would pass a hard limit; or reach it has and the call wants any.
func (f *Feature) Reserve(subject string, q Quota, n int64, wants bool) (t *Tally, s Standing, ok bool, err error) {
	for {
		if t, err = f.tally(subject); err != nil {
			return nil, s, false, err
		}
		s, ok, learned, gone := t.reserve(q, n, wants)
		if gone {
			continue
		}
		_ = learned
		return t, s, ok, nil
	}
}

// Tally is the subject's tally, nil if it has none.
func (f *Feature) Tally(subject string) *Tally {
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
	t := &Tally{feature: f}
	// Whoever finds the series marked waits for the lock before it counts. Who had
	// begun to count by then finds the mark behind its count, and has it read again.
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plain = f.markTallied(subject, t)
	for s := t.plain.next.Load(); s != nil; s = s.next.Load() {
		f.tallies.bySeries.Store(s, t)
		s.mark(tallied)
	}
	t.read()
	return t, nil
}

// markTallied finds or adds the subject's series, so that it can't be forgotten
// before it is marked.
func (f *Feature) markTallied(subject string, t *Tally) *Series {
	sh := f.plain.shard(f.plain.hash(subject))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := f.plain.find(subject)
	if s == nil {
		s = newSeries(f, subject, 0)
		f.plain.insert(s)
	}
	f.tallies.bySeries.Store(s, t)
	s.mark(tallied)
	return s
}

// tally is what the series counts through; nil: nothing.
func (s *Series) tally() *Tally {
	if s.is(evicted) {
		// A handle outlives the series' place in the index; see register.
		if twin := s.index().find(s.name()); twin != nil {
			s = twin
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

// addTo is Add through t, nil for none. freed says that held was given back.
func (s *Series) addTo(n int64, t *Tally, held int64) (freed bool, err error) {
	missed := t == nil
	err = s.add(n, func(p *place) result {
		if t == nil {
			return p.add(s, uint64(n))
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		res := p.add(s, uint64(n))
		if res == counted {
			missed = t.gone
			t.count(p.seg.head.start, n)
			t.held -= held
			freed = true
		}
		return res
	})
	if missed {
		s.missed()
	}
	return freed, err
}

// count notes n units of a window that begins at a second. The caller holds mu.
func (t *Tally) count(at, n int64) {
	t.roll(at)
	before := t.standing()
	t.month.note(at, n)
	t.own.note(at, n)
	after := t.standing()
	if over := after.Over() - before.Over(); over > 0 {
		t.feature.over.Add(over)
	}
}

// missed is called after something was counted past a tally.
func (s *Series) missed() {
	if t := s.tally(); t != nil {
		t.mu.Lock()
		t.read()
		t.mu.Unlock()
	}
}

// read finds what was counted past the tally: before it was made, or while it was.
// The caller holds mu, so that nothing is counted through it meanwhile.
func (t *Tally) read() {
	l := t.feature.ledger
	t.roll(l.began.Load())
	month := monthOf(t.month.start)
	l.totalsMu.Lock()
	sum := int64(0)
	for s := t.plain; s != nil; s = s.next.Load() {
		sum = add(sum, s.inMonth(month))
	}
	l.totalsMu.Unlock()
	if more := sum - t.month.counted; more > 0 {
		t.count(l.began.Load(), more)
	}
}

// forgetIdle forgets tallies of subjects that used nothing in the running period and
// have no call running, so that their series can be forgotten, too.
func (f *Feature) forgetIdle() {
	f.tallies.making.Lock()
	defer f.tallies.making.Unlock()
	for _, t := range f.tallies.bySeries.Range {
		t := t.(*Tally)
		t.mu.Lock()
		t.roll(f.ledger.began.Load())
		if t.running == 0 && t.month.counted == 0 && t.now().counted == 0 && t.plain.seg.Load() == nil {
			t.gone = true
			for s := t.plain; s != nil; s = s.next.Load() {
				s.unmark(tallied)
				f.tallies.bySeries.Delete(s)
			}
		}
		t.mu.Unlock()
	}
}
