package stripesink

import (
	"slices"
	"sync"
	"time"
)

// endLead is how long before the end of a period a window ends, too: what it counted
// can be delivered while its period still runs. Only what is used after that comes late.
const endLead = 15 * time.Second

// ends remembers when billing periods end.
type ends struct {
	mu      sync.Mutex
	seconds []int64 // sorted, each once
}

// add notes seconds, as far as they are to come, and drops those that have come.
func (e *ends) add(seconds ...int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().Unix()
	past, _ := slices.BinarySearch(e.seconds, now)
	e.seconds = slices.Delete(e.seconds, 0, past)
	for _, s := range seconds {
		if at, known := slices.BinarySearch(e.seconds, s); s > now && !known {
			e.seconds = slices.Insert(e.seconds, at, s)
		}
	}
}

// next is the first moment after a time at which a window should end; zero: none is
// known.
func (e *ends) next(after time.Time) (first time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, lead := range []time.Duration{0, endLead} {
		at, exact := slices.BinarySearch(e.seconds, after.Add(lead).Unix())
		if exact {
			at++
		}
		if at == len(e.seconds) {
			continue
		}
		if moment := time.Unix(e.seconds[at], 0).Add(-lead); first.IsZero() || moment.Before(first) {
			first = moment.UTC()
		}
	}
	return first
}
