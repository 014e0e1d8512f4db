package cache

import (
	"errors"
	"fmt"
	"time"
)

const (
	failuresToOpen = 5 // in a row
	firstPause     = time.Second
	longestPause   = 10 * time.Second
	// longestWait bounds what a license server may ask for by Retry-After.
	longestWait = 5 * time.Minute
)

// circuit keeps calls from a license server that is down: they would spend the time
// of those who wait, and the server's when it comes back. It opens when calls fail
// one after the other or the server asks for a pause; from time to time it lets one
// through, and the first answer closes it. It is guarded by Cache.mu.
type circuit struct {
	failures int           // since the last answer
	pause    time.Duration // 0: closed
	until    time.Duration // monotonic
	probing  bool
	last     error
}

// refusal says why no call may be made now, or nil.
func (c *circuit) refusal(now time.Duration) error {
	if c.pause == 0 || now >= c.until && !c.probing {
		return nil
	}
	return &paused{max(c.until-now, 0), c.last}
}

// depart is told of every call that is made.
func (c *circuit) depart() (probe bool) {
	c.probing = c.pause > 0
	return c.probing
}

// land is told how a call ended: err is nil if the server has answered.
func (c *circuit) land(now time.Duration, probe bool, err error) {
	if err == nil {
		*c = circuit{}
		return
	}
	if probe {
		c.probing = false
	}
	c.failures++
	c.last = err
	wait := min(retryAfter(err), longestWait)
	switch {
	case probe:
		c.pause = min(2*c.pause, longestPause)
	case c.pause == 0 && (wait > 0 || c.failures >= failuresToOpen):
		c.pause = firstPause
	case wait == 0:
		return // closed, or made before the circuit opened: no news
	}
	c.until = max(c.until, now+max(c.pause, wait))
}

// retryAfter is how long the license server asks to be left alone.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		return e.RetryAfter()
	}
	return 0
}

// paused says that the Checker was not asked.
type paused struct {
	wait  time.Duration // 0: it is being asked
	cause error         // of the last call
}

func (e *paused) Error() string {
	return fmt.Sprintf("cache: Checker not asked for another %v, for its last calls have failed: %v", e.wait.Round(time.Millisecond), e.cause)
}

func (e *paused) Unwrap() error { return e.cause }

// RetryAfter is for a cache that stands behind this one, and for replies.
func (e *paused) RetryAfter() time.Duration { return e.wait }
