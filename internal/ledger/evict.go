package ledger

// evictIdle forgets, once a month, series that were not used in it, so that memory follows
// the customers of a month and not all there ever were.
func (l *Ledger) evictIdle() {
	l.totalsMu.Lock()
	month := l.totalsMonth
	l.totalsMu.Unlock()
	if month == l.evictedIn {
		return
	}
	l.evictedIn = month
	for _, f := range l.featuresNow() {
		f.forgetIdle()
		f.dimensioned.evict(l, func(s *Series) bool { return s.idle() })
		f.plain.evict(l, func(s *Series) bool {
			s.unlinkEvicted()
			return s.idle() && s.next.Load() == nil
		})
	}
}

// evict takes from the index what may go. May is called with totalsMu and the lock of
// the series' shard held.
func (x *index) evict(l *Ledger, may func(*Series) bool) {
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		if sh.n > 0 {
			l.totalsMu.Lock()
			sh.each(func(s *Series) {
				if may(s) {
					s.mark(evicted)
				}
			})
			l.totalsMu.Unlock()
			x.rebuild(sh, func(s *Series) bool { return !s.is(evicted) })
		}
		sh.mu.Unlock()
	}
}

// idle reports whether nothing was counted in the running month, and nothing depends on
// that. The caller holds totalsMu.
func (s *Series) idle() bool { return s.total == 0 && s.seg.Load() == nil && !s.is(tallied) }

// forgetTally has the series count through none, so that nobody keeps it.
func (s *Series) forgetTally() {
	if s.is(tallied) {
		s.unmark(tallied)
		s.feature.tallies.bySeries.Delete(s)
	}
}

// unlinkEvicted takes from a subject's series those with dimensions that are evicted.
// The caller holds totalsMu and the lock of the shard of s.
func (s *Series) unlinkEvicted() {
	for before := s; ; {
		next := before.next.Load()
		switch {
		case next == nil:
			return
		case next.is(evicted):
			before.next.Store(next.next.Load())
			next.unmark(linked)
			next.forgetTally() // it may have got one after it was evicted
		default:
			before = next
		}
	}
}
