package ledger

import "time"

// period is one of a quota's own. What is counted in windows that begin in [since, end)
// belongs to it, unless it was used before start: so a running process, recovery,
// folding and adoption all count the same, whenever they learn of it. What was counted
// in it before is base, and stays that.
type period struct {
	start, end int64 // as the quota says; end 0: there is no period, forever: it is not known
	since      int64 // start of the window that ran when it was learned
	base       int64 // what it was known then to have had before that
	after      int64 // how long the one before it lasted that it followed unasked; 0: none did
	counted    int64 // base included
}

// roll begins the next period if a window that begins at a second is not in this one.
// That one has no end until a quota says it. Nothing is stored of it, for whoever
// knows the period before it comes to the same.
func (p *period) roll(at int64) {
	if p.end != 0 && at >= p.end {
		*p = period{start: p.end, end: forever, since: p.end, after: max(1, p.end-p.start)}
	}
}

func (p *period) has(at when) bool {
	return p.end != 0 && at.counted >= p.since && at.used >= p.start
}

func (p *period) note(at when, n int64) {
	if p.has(at) {
		p.counted = add(p.counted, n)
	}
}

// adopt makes q the quota, as of the window that begins at a second. The caller holds
// mu.
func (t *Tally) adopt(q *Quota, at int64) {
	t.roll(at)
	t.quota = *q
	t.quota.Limit, t.quota.Used = max(q.Limit, -1), max(q.Used, 0)
	if q.Start == 0 && q.End == 0 {
		t.usesOwn = false
		return
	}
	if q.Start > at {
		return // not yet: until then it bounds the period that runs
	}
	t.usesOwn = true
	start, end := q.Start, q.End
	if end <= start {
		end = forever
	}
	known := t.own.end != 0
	same := known && start == t.own.start
	switch {
	case known && end <= t.own.start:
		t.quota.Used = 0 // it was of a period that is over
	case same && (end == forever || end == t.own.end):
	case known && start < t.own.since && !same:
		// The running period, in other words. A really new one says so by its start.
		if end <= at || past(end) {
			t.quota.Used = 0
		} else if t.own.endsAt(start, end) {
			t.own.end = end
			t.learned++
		}
	case end <= at: // the one behind it runs
		t.quota.Used = 0
		t.begin(end, forever)
	case start != 0 && past(end) && (!same || t.own.end == forever):
		// The running window is its last. Whether another period follows, or just the
		// bounds move with the clock, shows when the next one has begun.
		if !same {
			t.begin(start, forever)
		}
	case same:
		// Without a start, a later end that is told when the period is over, though its
		// last window is not, is the next one's.
		if start != 0 || end < t.own.end || !past(t.own.end) {
			t.own.end = end
			t.learned++
		}
	default:
		t.begin(start, end)
	}
}

// endsAt reports whether the end, which is to come, is believed of a quota that tells of
// this period by another start, or by none (0). It may have been put off. That it comes
// earlier is not believed, for bounds that move with the clock would begin a period with
// every window. If none is known, because this one has followed another unasked, it must
// not be so near that such bounds would end it soon: a quarter of the quota's length away
// at least.
func (p *period) endsAt(start, end int64) bool {
	switch {
	case end == forever:
		return false
	case p.end != forever:
		return end > p.end && (start != 0 || !past(p.end))
	}
	return p.after != 0 && (start == 0 || end-time.Now().Unix() >= (end-start)/4)
}

// past reports whether a second has come.
func past(second int64) bool { return second <= time.Now().Unix() }

// begin makes [start, end) the running period, in which the running window is the first
// to count; of those before it is known what they had in the running month, so that is
// what counts if it is all in the period. The caller holds mu.
func (t *Tally) begin(start, end int64) {
	at, seen := t.look(start)
	t.month.counted = max(t.month.counted, seen.month)
	t.own = period{start: start, end: end, since: at, counted: seen.window}
	if start <= t.month.start {
		t.own.base = t.month.counted - seen.both
		t.own.counted = add(t.own.base, seen.window)
	}
	t.learned++
}

// seen is what a subject's series say.
type seen struct {
	month  int64 // used in the running month
	window int64 // counted in the running window, and used from some second on
	both   int64 // counted in the running window, and used in the running month
}

// look reads from its series what the subject has used, and what of it since from in the
// window that has begun at a second. The caller holds mu, so that nothing is counted
// through the tally meanwhile.
func (t *Tally) look(from int64) (at int64, sum seen) {
	l := t.feature.ledger
	l.totalsMu.Lock()
	defer l.totalsMu.Unlock()
	at = l.began.Load() // only now: while the lock is held, no word of that window is sealed
	t.roll(at)
	running := monthOf(t.month.start)
	for s := t.plain; s != nil; s = s.next.Load() {
		if l.totalsMonth == running {
			sum.month = add(sum.month, s.total)
		}
		s.unsealed(func(n int64, when when) {
			inMonth, inWindow := monthOf(when.used) == running, when.counted >= at
			if inMonth {
				sum.month = add(sum.month, n)
			}
			if inWindow && when.used >= from {
				sum.window = add(sum.window, n)
			}
			if inWindow && inMonth {
				sum.both = add(sum.both, n)
			}
		})
	}
	return at, sum
}

// recover notes what was found on disk, of a window or, if that is zero, of a month. The
// caller holds mu.
func (t *Tally) recover(month int32, at when, n int64) {
	first, _ := monthBounds(month)
	t.roll(max(first.Unix(), at.counted))
	t.month.note(first.Unix(), n)
	if at.counted != 0 {
		t.own.note(at, n)
		t.ever.note(at, n)
	}
}

// unseen is what was counted this month past the tally: before it was made, or while
// it was. The caller holds mu.
func (t *Tally) unseen() int64 {
	_, sum := t.look(0)
	return max(0, sum.month-t.month.counted)
}

// missed is called after n was counted in seg past a tally that there may be by now: one
// that was made meanwhile has seen it or not.
func (s *Series) missed(seg *segment, n int64) {
	if t := s.tally(); t != nil {
		t.lookAgain(s.when(seg), n)
	}
}

// lookAgain counts what was counted past the tally, of n that were.
func (t *Tally) lookAgain(at when, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	began, seen := t.look(t.own.start)
	before := t.used()
	missing := min(n, max(0, seen.month-t.month.counted))
	t.month.counted = add(t.month.counted, missing)
	if t.own.has(at) {
		t.own.catchUp(at, n, missing, seen.window, began)
	} else {
		t.late(at, missing)
	}
	if t.ever.has(at) {
		_, all := t.look(t.ever.start)
		t.ever.catchUp(at, n, missing, all.window, began)
	} else {
		t.noteEver(at, missing)
	}
	t.noted(before)
}

// catchUp counts what was counted past a period that it belongs to: n, of which as much is
// missing in the running month, while the running window, which has begun at a second, has
// window in all.
func (p *period) catchUp(at when, n, missing, window, began int64) {
	switch {
	case at.counted > p.since: // nobody has looked since then
		p.note(at, n)
	case p.since == began:
		p.counted = max(p.counted, add(p.base, window))
	default:
		p.note(at, missing)
	}
}

// outlives reports whether a period could still matter that begins at a second or
// later, also if nobody uses anything until then.
func (p *period) outlives(at int64) bool {
	switch {
	case p.end == 0:
		return false
	case p.end != forever || p.after == 0 || p.counted > 0:
		return true
	}
	return at < add(p.start, p.after) // one more, for the quota that will speak of it
}
