package ledger

// What a subject uses of a Sum from some moment on, in one number that no quota's period
// begins or ends: what bought units are taken of. It is kept as a period is that has no
// end, beside that of the subject's quota; neither knows of the other.

// BeginEver has all be counted that the subject uses from now on, and says what is by
// now: the running window counts as a whole. Again, it goes on with the count. That is
// safe from power loss once it returns nil.
func (f *Feature) BeginEver(subject string) (counted int64, err error) {
	for {
		t, err := f.tally(subject)
		if err != nil {
			return 0, err
		}
		t.mu.Lock()
		if t.gone {
			t.mu.Unlock()
			continue
		}
		if t.ever.end == 0 {
			at, seen := t.look(0)
			t.ever = period{end: forever, since: at, counted: seen.window}
			t.learned++
		}
		counted = t.ever.counted
		t.mu.Unlock()
		return counted, f.ledger.keepSafely(t, true) // also what failed to be kept before
	}
}

// Ever is what was counted of the subject since BeginEver, before that 0, and what
// running calls have reserved, also of a quota.
func (f *Feature) Ever(subject string) (counted, held int64) {
	t := f.Tally(subject)
	if t == nil {
		return 0, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ever.counted, t.held.sum()
}

// ReserveEver is Reserve up to a limit of what is counted since BeginEver. It asks for no
// quota and changes none. Without a tally the call was refused.
func (f *Feature) ReserveEver(known *Tally, subject string, limit, n int64, wants bool) (t *Tally, ok bool, err error) {
	for t = known; ; t = nil {
		if t == nil {
			if t = f.Tally(subject); t == nil && (n > 0 || wants) {
				return nil, false, nil // who has nothing leaves no trace
			}
		}
		if t == nil {
			if t, err = f.tally(subject); err != nil {
				return nil, false, err
			}
		}
		switch t.reserveEver(limit, n, wants) {
		case forgotten:
		case Refused:
			return t, false, nil
		default:
			return t, true, nil
		}
	}
}

func (t *Tally) reserveEver(limit, n int64, wants bool) Admission {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return forgotten
	}
	least := n
	if wants {
		least = max(n, 1)
	}
	left := max(0, limit-add(t.ever.counted, t.held.sum()))
	if t.ever.end == 0 {
		left = 0 // nothing was begun
	}
	if least > left {
		return Refused
	}
	t.held.add(n)
	t.running++
	return Within
}

// noteEver notes what is counted. The caller holds mu.
func (t *Tally) noteEver(at when, n int64) {
	if t.ever.end != 0 && at.counted < t.ever.since {
		// In a window that was retired, and not sealed, when the count began.
		t.ever.base, t.ever.counted = add(t.ever.base, n), add(t.ever.counted, n)
		t.learned++
		return
	}
	t.ever.note(at, n)
}

// resumeEver gives subjects the count that this directory's last process knew, with what
// was folded away of it.
func (l *Ledger) resumeEver(all *fold) {
	l.eachPeriod(all, true, func(k periodKey, t *Tally) bool {
		p := all.periods[k]
		t.ever = period{end: forever, since: k.since, base: p.base, counted: add(p.counted, p.base)}
		return false
	})
}
