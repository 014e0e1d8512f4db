package cryptolenssink

import (
	"context"
	"hash/maphash"

	"github.com/inprocess/meter/license"
)

// turns lets one at a time through for each key: two subjects, or two features of one,
// may lead to the same. A few other keys share its turn.
type turns struct {
	seed maphash.Seed
	free [64]chan struct{} // of capacity 1: full while taken
}

func newTurns() (t turns) {
	t.seed = maphash.MakeSeed()
	for i := range t.free {
		t.free[i] = make(chan struct{}, 1)
	}
	return t
}

// take waits for the key's turn, and returns what ends it, or why ctx ended first.
func (t *turns) take(ctx context.Context, key license.Key) (end func(), err error) {
	turn := t.free[maphash.Comparable(t.seed, key)%uint64(len(t.free))]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
