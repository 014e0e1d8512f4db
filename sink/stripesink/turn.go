package stripesink

import (
	"context"
	"sync"
)

// turns lets one at a time through for each name. Stripe takes one event at a time
// for a customer and meter, also where two features or two subjects lead there.
type turns struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed at the end of the turn
}

// take waits until no one else has name's turn, and returns what ends the turn, or
// why ctx ended first.
func (t *turns) take(ctx context.Context, name string) (end func(), err error) {
	for {
		t.mu.Lock()
		held, busy := t.held[name]
		if !busy {
			if t.held == nil {
				t.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			t.held[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.held, name)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
