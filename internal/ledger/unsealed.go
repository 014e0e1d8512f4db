package ledger

// A series that counts an event moves to the active segment at once, also from one that
// is yet to be sealed: what it has counted there must not be out of sight until then.

// stay notes where the series has counted in a segment that it is about to leave and that
// is not sealed yet.
func (s *Series) stay(p place) {
	l := s.feature.ledger
	l.totalsMu.Lock()
	defer l.totalsMu.Unlock()
	if s.seg.Load() == p.seg { // else it was sealed meanwhile
		p.seg.behind.Store(s, p.cell)
	}
}

// unsealed calls visit for what the series has counted that is no part of its total yet,
// the oldest first, with when that was. The caller holds totalsMu, so that nothing is
// sealed meanwhile.
func (s *Series) unsealed(visit func(n int64, at when)) {
	p, ok := s.place() // before those that it has left, for it may leave this one, too
	for _, seg := range s.feature.ledger.retiredNow() {
		if ok && seg == p.seg {
			continue
		}
		if cell, left := seg.behind.Load(s); left {
			s.unsealedIn(seg, seg.cell(cell.(uint32)), visit)
		}
	}
	if ok {
		s.unsealedIn(p.seg, p.seg.cell(p.cell), visit)
	}
}

// unsealedIn is unsealed for one segment, in which the series has its own slot at c.
func (s *Series) unsealedIn(seg *segment, c *cell, visit func(n int64, at when)) {
	own := seg.peek(c)
	if own&wordSealed != 0 {
		return // and all the others with it
	}
	at := s.when(seg)
	if own&wordSet != 0 {
		visit(int64(own&wordCount), at)
	}
	if sp := seg.spread(c.block); sp != nil {
		for _, stripe := range sp.stripes {
			if word := seg.peek(stripe); word&(wordSet|wordSealed) == wordSet {
				visit(int64(word&wordCount), at)
			}
		}
	}
	if r := seg.room(c.block); r != nil {
		visit(int64(r.events.Load()), at)
	}
}

// peek is a cell's word, and as sealing would have it if its memory is gone.
func (seg *segment) peek(c *cell) uint64 {
	word, ok := seg.load(c)
	if !ok {
		word = seg.journal.lastWord(c)
	}
	return word
}

// inMonth is the series' total in a month. The caller holds totalsMu.
func (s *Series) inMonth(month int32) (total int64) {
	if s.feature.ledger.totalsMonth == month {
		total = s.total
	}
	s.unsealed(func(n int64, at when) {
		if monthOf(at.used) == month {
			total = combine(s.feature.kind, total, n)
		}
	})
	return total
}
