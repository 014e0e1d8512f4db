package ledger

import (
	"math"
	"math/bits"
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

	mu      sync.Mutex
	plain   *Series // the subject's, without dimensions
	gone    bool    // forgotten: another one may have taken its place
	running int     // calls that were let through and have not ended
	footing
	learned uint32  // how often something was learned of own
	kept    uint32  // as often it was kept
	told    [2]told // in the calendar month, and in a period of a quota's own
}

// footing is what a standing is made of.
type footing struct {
	quota   Quota
	held    holds
	month   span
	own     period // of a quota with bounds of its own
	usesOwn bool
	ever    period // since units were bought; see BeginEver
}

// span is what was counted in windows that begin in [start, end).
type span struct{ start, end, counted int64 }

// holds is what calls hold. Without a limit, each may hold as much as one can count, so
// that their sum may be anything.
type holds struct{ high, low uint64 }

func (h *holds) add(n int64) {
	var carry uint64
	h.low, carry = bits.Add64(h.low, uint64(n), 0)
	h.high += carry
}

func (h *holds) sub(n int64) {
	var borrow uint64
	h.low, borrow = bits.Sub64(h.low, uint64(n), 0)
	h.high -= borrow
}

// sum is the highest number if it is more than that.
func (h *holds) sum() int64 {
	if h.high > 0 || h.low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(h.low)
}

const forever = math.MaxInt64

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

// roll brings the periods to the window that begins at a second. The caller holds mu.
func (t *Tally) roll(at int64) {
	if at >= t.month.end {
		start, end := monthBounds(monthOf(at))
		t.month = span{start: start.Unix(), end: end.Unix()}
	}
	t.own.roll(at)
}

// used is what was counted in the running period. The caller holds mu.
func (t *Tally) used() int64 {
	if t.usesOwn {
		return t.own.counted
	}
	return t.month.counted
}

// standing is how the subject stands. The caller holds mu.
func (t *Tally) standing() Standing {
	s := Standing{t.used(), t.held.sum(), t.quota.Limit, t.quota.Used, t.month.start, t.month.end, t.quota.Soft}
	if t.usesOwn {
		s.Start, s.End = t.own.start, t.own.end
	}
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
// reached by one that wants any. learned says that a period's bounds are not kept yet.
func (t *Tally) reserve(q *Quota, n int64, wants bool) (a Admission, learned bool) {
	t.mu.Lock()
	if t.gone {
		t.mu.Unlock()
		return forgotten, false
	}
	t.adopt(q, t.feature.ledger.began.Load())
	learned = t.learned != t.kept
	a = Within
	if limit := t.quota.Limit; limit >= 0 {
		t.tell() // the limit may have come down
		least := n
		if least == 0 && wants {
			least = 1
		}
		left := max(0, limit-add(add(t.quota.Used, t.used()), t.held.sum()))
		if least > left && !t.quota.Soft {
			a = Refused
		} else if least > left {
			a = Beyond
		}
	}
	if a != Refused {
		t.held.add(n)
		t.running++
	}
	t.mu.Unlock()
	return a, learned
}

// Release ends a call that was let through, and gives back the n that it holds.
func (t *Tally) Release(n int64) { t.free(n, true) }

func (t *Tally) free(n int64, ends bool) {
	t.mu.Lock()
	t.give(n, ends)
	t.mu.Unlock()
}

// give gives back n that a call holds. The caller holds mu.
func (t *Tally) give(n int64, ends bool) {
	t.held.sub(n)
	if ends {
		t.running--
	}
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
