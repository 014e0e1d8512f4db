package cryptolenssink

import (
	"sync"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/sink"
)

// place is where a record is counted.
type place struct {
	key    license.Key
	object string
}

// ref names the data object. It is by name, for a license server on premises that keeps
// a log of usage takes increments by ID for itself: it confirms them, and by its code
// adds up something else.
func (p place) ref() cryptolens.Ref { return cryptolens.Ref{Name: p.object} }

// recent is what a process remembers of calls that had no answer.
type recent struct {
	mu      sync.Mutex
	resting map[place]time.Time
	doubts  map[string]place // by the ID of the record
}

// rest has a data object left alone for a while.
func (c *recent) rest(at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting == nil {
		c.resting = map[place]time.Time{}
	}
	c.resting[at] = time.Now().Add(settleTime)
}

// note keeps where a record in doubt was sent to.
func (c *recent) note(r sink.Record, at place, outcome error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case isDoubt(outcome):
		if c.doubts == nil {
			c.doubts = map[string]place{}
		}
		c.doubts[r.ID] = at
	case outcome == nil:
		delete(c.doubts, r.ID)
	}
}

// refuses says why a record is not sent to a place.
func (c *recent) refuses(r sink.Record, at place) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, known := c.doubts[r.ID]; known && r.Doubt && before != at {
		return reject(r, "it may be counted on another key already: that of subject %q has changed", r.Subject)
	}
	until, resting := c.resting[at]
	if left := time.Until(until); resting && left > 0 {
		return sink.RetryAfter(postpone(r, "data object %q is left alone after a call without an answer", at.object), left)
	}
	delete(c.resting, at)
	return nil
}
