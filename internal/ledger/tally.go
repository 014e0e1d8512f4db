package ledger

import (
	"math"
	"sync"
)

// Quota bounds what a subject may use of a feature in a period.
type Quota struct {
	Limit, Used int64 // Limit below 0: none. Used is what others have used of it
	Start, End  int64 // seconds: windows that begin in [Start, End); both 0: the calendar month
	Soft        bool  // more is let through
}

// Standing is how a subject stands with its quota.
type Standing struct {
	Counted, Held int64
	Limit, Used   int64 // Limit -1: none
	Start, End    int64 // of the period, in seconds; End 0: none is known
	Soft          bool
}

// Taken is all that is used or reserved.
func (s *Standing) Taken() int64 { return add(add(s.Used, s.Counted), s.Held) }

// Left is what may still be reserved. It has no meaning without a limit.
func (s *Standing) Left() int64 { return max(0, s.Limit-s.Taken()) }

// Tally is what one subject used of a Sum in the running period, in one number that
// is always current: every count goes through it, and it decides who is let through.
// Its lock is held over a compare-and-swap, never over anything that waits.
type Tally struct {
	feature *Feature
	plain   *Series // the subject's, without dimensions

	mu      sync.Mutex
	gone    bool // forgotten: another one may have taken its place
	running int  // calls that were let through and have not ended
	held    int64
	month   span
	own     span // of a quota with bounds of its own; end 0: none was known yet
	usesOwn bool
	quota   Quota
	told    int   // marks that were reached in the period
	toldIn  int64 // its start
}

// span is what was counted in windows that begin in [start, end).
type span struct{ start, end, counted int64 }

const forever = math.MaxInt64

// roll begins another period if a window that begins at a second is not in this one.
func (s *span) roll(at int64, next func() (start, end int64)) {
	if at >= s.end {
		s.start, s.end = next()
		s.counted = 0
	}
}

func (s *span) note(at, n int64) {
	if at >= s.start {
		s.counted = add(s.counted, n)
	}
}

// add is the sum of two numbers that are not negative.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// roll brings the periods to the window that begins at a second. A quota's own that
// has ended is followed by one without an end, until its bounds are known. The caller
// holds mu.
func (t *Tally) roll(at int64) {
	if at < t.month.end && (at < t.own.end || t.own.end == 0) {
		return
	}
	t.month.roll(at, func() (int64, int64) {
		start, end := monthBounds(monthOf(at))
		return start.Unix(), end.Unix()
	})
	if t.own.end != 0 {
		t.own.roll(at, func() (int64, int64) { return t.own.end, forever })
	}
}

// now is the running period. The caller holds mu.
func (t *Tally) now() *span {
	if t.usesOwn {
		return &t.own
	}
	return &t.month
}

// adopt makes q the quota, as of the window that begins at a second, and reports
// whether that taught it the bounds of a period. The caller holds mu.
func (t *Tally) adopt(q *Quota, at int64) (learned bool) {
	t.roll(at)
	t.quota = *q
	t.quota.Limit, t.quota.Used = max(q.Limit, -1), max(q.Used, 0)
	if q.Start == 0 && q.End == 0 {
		t.usesOwn = false
		return false
	}
	if q.Start > at {
		return false // not yet: until then it bounds the period that runs
	}
	next := span{start: q.Start, end: q.End}
	if next.end <= next.start {
		next.end = forever
	}
	next.roll(at, func() (int64, int64) { return q.End, forever })
	if next.start > q.Start || next.start < t.own.start {
		t.quota.Used = 0 // it was of a period that is over
	}
	switch {
	case t.own.end == 0 || next.start > t.own.start:
		if next.start <= t.month.start {
			next.counted = t.month.counted
		}
		t.own, learned = next, true
	case next.start == t.own.start && next.end != forever && next.end != t.own.end:
		t.own.end, learned = next.end, true
	}
	t.usesOwn = true
	return learned
}

// recover notes what was found on disk. The caller holds mu.
func (t *Tally) recover(month int32, start, n int64) {
	first, _ := monthBounds(month)
	t.roll(max(first.Unix(), start))
	t.month.note(first.Unix(), n)
	if start != 0 {
		t.own.note(start, n)
	}
}

// standing is how the subject stands. The caller holds mu.
func (t *Tally) standing() Standing {
	p := t.now()
	s := Standing{p.counted, t.held, t.quota.Limit, t.quota.Used, p.start, p.end, t.quota.Soft}
	if s.End == forever {
		s.End = 0
	}
	return s
}

// Series is the subject's, without dimensions. It stays as long as a call runs.
func (t *Tally) Series() *Series { return t.plain }

// Standing is how the subject stands now.
func (t *Tally) Standing() Standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.roll(t.feature.ledger.began.Load())
	return t.standing()
}

// Admission is what Reserve has decided.
type Admission uint8

const (
	Refused   Admission = iota
	Within              // the quota
	Beyond              // a soft quota
	forgotten           // the tally is of the past
)

// reserve holds n for a call, or refuses it: a hard limit would be passed, or was
// reached by one that wants any.
func (t *Tally) reserve(q *Quota, n int64, wants bool) (a Admission, learned bool) {
	t.mu.Lock()
	if t.gone {
		t.mu.Unlock()
		return forgotten, false
	}
	learned = t.adopt(q, t.feature.ledger.began.Load())
	a = Within
	if limit := t.quota.Limit; limit >= 0 {
		t.tell() // the limit may have come down
		least := n
		if least == 0 && wants {
			least = 1
		}
		left := max(0, limit-add(add(t.quota.Used, t.now().counted), t.held))
		if least > left && !t.quota.Soft {
			a = Refused
		} else if least > left {
			a = Beyond
		}
	}
	if n > math.MaxInt64-t.held {
		a = Refused
	}
	if a != Refused {
		t.held += n
		t.running++
	}
	t.mu.Unlock()
	return a, learned
}

// Release ends a call that was let through, and gives back the n that it holds.
func (t *Tally) Release(n int64) { t.free(n, true) }

func (t *Tally) free(n int64, ends bool) {
	t.mu.Lock()
	t.held -= n
	if ends {
		t.running--
	}
	t.mu.Unlock()
}

// AddHeld is Add for a call that t let through, and that ends with it if ends. In the
// same moment, and also if it could not be counted, it gives back held of what the
// call holds.
func (s *Series) AddHeld(n int64, t *Tally, held int64, ends bool) error {
	done, err := s.addTo(n, t, held, ends)
	if !done {
		t.free(held, ends)
	}
	return err
}
