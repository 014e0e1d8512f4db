package stripesink

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	// minLead is at least how long before the end of a period a window ends, too: what it
	// counted can be delivered while its period still runs. Only what is used after that
	// comes late.
	minLead = 15 * time.Second
	// notice is how many seconds before a moment it must be known: NextEnd is asked every
	// second or so.
	notice = 3
)

// ends remembers when the billing periods of items end.
type ends struct {
	lead int64   // seconds, of a single item
	rate float64 // records that are delivered in a second
	mu   sync.Mutex
	all  []end // sorted
}

// end is a second at which periods end.
type end struct {
	at    int64
	lead  int64 // a window ends so many seconds before, too
	items map[string]struct{}
}

// newEnds has the window that begins at the lead be as old as windows must be, apart,
// when the period ends.
func newEnds(apart time.Duration, rate float64) *ends {
	return &ends{lead: int64(max(minLead, apart+time.Second) / time.Second), rate: rate}
}

// add notes seconds at which periods of an item end, as far as they are to come, and
// drops those that have come.
func (e *ends) add(item string, seconds ...int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().Unix()
	e.all = slices.Delete(e.all, 0, e.after(now-1))
	for _, s := range seconds {
		if s <= now {
			continue
		}
		i := e.after(s - 1)
		if i == len(e.all) || e.all[i].at != s {
			e.all = slices.Insert(e.all, i, end{at: s, items: map[string]struct{}{}})
		}
		e.all[i].items[item] = struct{}{}
		e.all[i].lead = max(e.all[i].lead, e.leadOf(e.all[i], now))
	}
}

// leadOf grows with the records that are all to be delivered before an end: one for
// each item, at half the rate, which has others to deliver as well. A moment that has
// passed unknown would be one at which no window ends, so it is not before the next
// that can be kept.
func (e *ends) leadOf(of end, now int64) int64 {
	want := e.lead + int64(2*float64(len(of.items))/e.rate)
	return min(want, max(of.at-now-notice, e.lead))
}

// after is the place of the first end after a second.
func (e *ends) after(second int64) int {
	at, _ := slices.BinarySearchFunc(e.all, second+1, func(e end, s int64) int { return cmp.Compare(e.at, s) })
	return at
}

// next is the first moment after a time at which a window should end; zero: none is
// known.
func (e *ends) next(after time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	second, first := after.Unix(), int64(0)
	for _, end := range e.all[e.after(second):] {
		moment := end.at - end.lead
		if moment <= second {
			moment = end.at
		}
		if first == 0 || moment < first {
			first = moment
		}
	}
	if first == 0 {
		return time.Time{}
	}
	return time.Unix(first, 0).UTC()
}
