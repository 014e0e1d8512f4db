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
// through.
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

// depart is told of every call that is made, and says whether it is a probe.
func (c *circuit) depart() bool {
	c.probing = c.pause > 0
	return c.probing
}

// fail is told of every call that brought no answer.
func (c *circuit) fail(now time.Duration, probe bool, err error) {
	c.failures++
	c.last = err
	wait := min(retryAfter(err), longestWait)
	switch {
	case probe && c.pause > 0:
		c.probing = false
		c.pause = min(2*c.pause, longestPause)
	case c.pause == 0 && (wait > 0 || c.failures >= failuresToOpen):
		c.pause = firstPause
	case wait <= 0:
		return // closed, or made before it opened: no news
	}
	c.until = max(c.until, now+max(c.pause, wait))
}

// pass is told of every call whose error says nothing about the server: another may
// be the probe.
func (c *circuit) pass(probe bool) {
	if probe && c.pause > 0 {
		c.probing = false
	}
}

// circuits are guarded by Cache.mu. As in the budget, strangers have one of their own:
// if the Checker fails at keys that somebody makes up, that is not to hold up
// customers.
type circuits struct{ customers, strangers circuit }

func (c *circuits) of(customer bool) *circuit {
	if customer {
		return &c.customers
	}
	return &c.strangers
}

// land is told how every call ended: any answer says that the server is there, and
// a failure at a customer that it is not. After a start without a File, everybody is a
// stranger: who makes up queries that the Checker can't make sense of must not keep the
// others from it.
func (c *circuits) land(now time.Duration, f *flight) {
	switch {
	case f.failed == nil:
		*c = circuits{}
		return
	case aboutQuery(f.failed):
		c.of(f.customer).pass(f.probe)
		return
	}
	c.strangers.fail(now, f.probe && !f.customer, f.failed)
	if f.customer {
		c.customers.fail(now, f.probe, f.failed)
	}
}

// open returns the error that opened one of the two, or nil.
func (c *circuits) open() error {
	for _, one := range []*circuit{&c.customers, &c.strangers} {
		if one.pause > 0 {
			return one.last
		}
	}
	return nil
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

// aboutQuery says whether another query might have been answered.
func aboutQuery(err error) bool {
	e, ok := errors.AsType[interface {
		error
		AboutQuery() bool
	}](err)
	return ok && e.AboutQuery()
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
