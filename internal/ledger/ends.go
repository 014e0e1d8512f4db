package ledger

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// ends are the seconds at which periods of quotas end that are known. Windows are cut
// there, so that what is used after one is not counted in it. Of a period that was
// corrected, the first end stays: a window too many harms nobody.
type ends struct {
	first atomic.Int64 // 0: none is known

	mu    sync.Mutex
	all   secondHeap
	known map[int64]struct{}
}

type secondHeap []int64

func (h secondHeap) Len() int           { return len(h) }
func (h secondHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h secondHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *secondHeap) Push(x any)        { *h = append(*h, x.(int64)) }
func (h *secondHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// add reports whether at is the first now.
func (e *ends) add(at int64) bool {
	if at == 0 || at == forever {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.known[at]; ok || at <= time.Now().Unix() {
		return false
	}
	if e.known == nil {
		e.known = make(map[int64]struct{})
	}
	e.known[at] = struct{}{}
	heap.Push(&e.all, at)
	e.first.Store(e.all[0])
	return e.all[0] == at
}

// pass drops those that have come.
func (e *ends) pass(now int64) {
	if first := e.first.Load(); first == 0 || first > now {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.all) > 0 && e.all[0] <= now {
		delete(e.known, heap.Pop(&e.all).(int64))
	}
	e.first.Store(0)
	if len(e.all) > 0 {
		e.first.Store(e.all[0])
	}
}

// mostCuts is how many windows at most periods may make of one: each costs records.
const mostCuts = 10

// periodCut is when the running window ends if a period does before it would, seen from
// now.
func (l *Ledger) periodCut(window, now time.Time) time.Time {
	first := l.periodEnds.first.Load()
	if first == 0 {
		return window
	}
	age := now.Sub(l.active.Load().since)
	cut := later(time.Unix(first, 0), now.Add(l.window/mostCuts-age))
	if cut.Before(window) {
		return cut
	}
	return window
}
