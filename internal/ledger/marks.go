package ledger

import (
	"math"
	"math/bits"
)

// marks are shares of a quota that somebody wants to be told of.
type marks struct {
	percents []int // ascending, above 0
	reached  func(subject string, percent int, s Standing)
}

// told is which marks somebody was told of.
type told struct {
	in    int64 // start of the period
	marks int   // that were reached
}

// Mark has reached called when a subject's use, without what is only held, reaches
// percents (ascending, above 0) of its quota: once for each, in each period. It is
// called with the tally's lock held, so it must not wait or count.
func (f *Feature) Mark(percents []int, reached func(subject string, percent int, s Standing)) {
	f.tallies.marks.Store(&marks{percents, reached})
}

// tell says which marks were reached. The caller holds mu.
func (t *Tally) tell() {
	m := t.feature.tallies.marks.Load()
	if m == nil || t.quota.Limit < 0 {
		return
	}
	s := t.standing()
	before := &t.told[0]
	if t.usesOwn {
		before = &t.told[1]
	}
	if s.Start != before.in {
		*before = told{in: s.Start}
	}
	for before.marks < len(m.percents) && add(s.Used, s.Counted) >= share(s.Limit, m.percents[before.marks]) {
		m.reached(t.plain.name(), m.percents[before.marks], s)
		before.marks++
	}
}

// share is a part of limit, rounded up, but not nothing.
func share(limit int64, percent int) int64 {
	hi, lo := bits.Mul64(uint64(limit), uint64(percent))
	if hi >= 100 {
		return math.MaxInt64
	}
	part, rest := bits.Div64(hi, lo, 100)
	if rest > 0 {
		part++
	}
	return max(1, int64(min(part, math.MaxInt64)))
}
