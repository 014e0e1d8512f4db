package cryptolenssink

import (
	"errors"
	"maps"
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

// maxDoubts bounds what is remembered of records in doubt. One that is forgotten fares
// as after a restart.
const maxDoubts = 10_000

// rest has a data object left alone for a while.
func (c *recent) rest(at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resting == nil {
		c.resting = map[place]time.Time{}
	}
	now := time.Now()
	maps.DeleteFunc(c.resting, func(_ place, until time.Time) bool { return !until.After(now) })
	c.resting[at] = now.Add(settleTime)
}

// rests is how long a data object is still to be left alone.
func (c *recent) rests(at place) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, resting := c.resting[at]
	if !resting {
		return 0
	}
	return time.Until(until)
}

// note keeps where a record in doubt was sent to, until nothing will be asked about it.
func (c *recent) note(r sink.Record, at place, outcome error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case isDoubt(outcome):
		if c.doubts == nil {
			c.doubts = map[string]place{}
		}
		for id := range c.doubts {
			if len(c.doubts) < maxDoubts {
				break
			}
			delete(c.doubts, id)
		}
		c.doubts[r.ID] = at
	case outcome == nil, errors.Is(outcome, sink.ErrRejected):
		delete(c.doubts, r.ID)
	}
}

// knows reports whether it was there that a record in doubt was sent to.
func (c *recent) knows(r sink.Record, at place) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.doubts[r.ID]
	return known && before == at
}
