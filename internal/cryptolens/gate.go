package cryptolens

import (
	"errors"
	"strings"
	"sync"
)

// gate is a request body that knows whether any of it was taken. Whatever the
// transport does, a server that got no byte of the form has applied nothing; and once
// the gate is shut no goroutine left behind can change that.
type gate struct {
	size int64

	mu     sync.Mutex
	data   *strings.Reader
	opened bool
	closed bool
}

func newGate(data string) *gate { return &gate{size: int64(len(data)), data: strings.NewReader(data)} }

var errShut = errors.New("request is over")

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, errShut
	}
	g.opened = true
	return g.data.Read(p)
}

// Close does nothing: a transport closes the body before it is sure to be done.
func (g *gate) Close() error { return nil }

// shut ends all reading and reports whether there was any.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.opened
}
