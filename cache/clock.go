package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how old the time may be that hits go by.
	tick = 100 * time.Millisecond
	// margin is what hits add to that, for ticks come late on a busy machine: closer
	// to the end of a verdict the clock itself is read.
	margin = time.Second
)

// instant is a moment by two clocks. The wall clock can be set back, and the
// monotonic one stands still while a machine is suspended.
type instant struct {
	mono time.Duration // since the cache was made
	wall int64         // Unix time in nanoseconds
}

// since is the time that passed by the clock that shows more of it: neither
// setting a clock back nor suspending the machine prolongs grace.
func (i instant) since(earlier instant) time.Duration {
	return max(i.mono-earlier.mono, time.Duration(i.wall-earlier.wall))
}

// ended says whether until has passed for a verdict of that age.
func (i instant) ended(until time.Time, age time.Duration) bool {
	return !until.IsZero() && !time.Unix(0, i.wall).Add(age).Before(until)
}

// clock tells the time, and while it is asked often enough also for next to
// nothing: reading the system's costs twice as much as the rest of a hit.
type clock struct {
	start  time.Time
	recent atomic.Pointer[instant] // at the last tick; nil: nobody ticks
	wanted atomic.Bool             // since the last tick

	mu    sync.Mutex
	timer *time.Timer
}

func (c *clock) now() instant {
	now := time.Now()
	return instant{now.Sub(c.start), now.UnixNano()}
}

// glance is the time of the last tick, or nil.
func (c *clock) glance() *instant {
	now := c.recent.Load()
	if now != nil && !c.wanted.Load() {
		c.wanted.Store(true)
	}
	return now
}

// wake starts the ticks. They stop when nobody has wanted the last one.
func (c *clock) wake() {
	if c.recent.Load() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recent.Load() != nil {
		return
	}
	now := c.now()
	c.recent.Store(&now)
	if c.timer == nil {
		c.timer = time.AfterFunc(tick, c.tick)
	} else {
		c.timer.Reset(tick)
	}
}

func (c *clock) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wanted.Swap(false) {
		c.recent.Store(nil)
		return
	}
	now := c.now()
	c.recent.Store(&now)
	c.timer.Reset(tick)
}
