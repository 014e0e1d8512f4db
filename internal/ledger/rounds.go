package ledger

import (
	"runtime"
	"sync"
)

// rounds lets callers share an expensive act, such as a sync of the disk: each
// takes part in one that begins after it came, and all of a round get its error.
type rounds[T any] struct {
	mu   sync.Mutex
	busy bool
	next *round[T] // still open to join
}

type round[T any] struct {
	items []T
	start chan struct{} // closed when the round's first caller is to act
	done  chan struct{}
	err   error
}

func (r *rounds[T]) join(item T, act func([]T) error) error {
	r.mu.Lock()
	mine, first := r.next, false
	if mine == nil {
		mine, first = &round[T]{start: make(chan struct{}), done: make(chan struct{})}, true
		r.next = mine
		if !r.busy {
			r.busy = true
			close(mine.start)
		}
	}
	mine.items = append(mine.items, item)
	r.mu.Unlock()
	if !first {
		<-mine.done
		return mine.err
	}
	<-mine.start
	// Others that could run now shall join: while act blocks in a system call, the
	// scheduler may leave them waiting for this processor for long.
	runtime.Gosched()
	r.mu.Lock()
	r.next = nil // whoever comes now was too late for this round
	r.mu.Unlock()
	mine.err = act(mine.items)
	close(mine.done)
	r.mu.Lock()
	if r.next != nil {
		close(r.next.start)
	} else {
		r.busy = false
	}
	r.mu.Unlock()
	return mine.err
}
