package cache

import (
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/license"
)

// retryPause is the least time between two attempts to refresh one verdict. A
// license server that is down would else be asked at every check.
const retryPause = 10 * time.Second

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

// age is what a customer's verdict is good for.
type age uint8

const (
	spent age = iota // not to be answered
	stale            // to be answered, and refreshed
	fresh            // to be answered
)

// entry is the last good answer about a customer.
type entry struct {
	verdict license.Verdict
	at      instant
	used    atomic.Bool  // since it was last spared from eviction
	retry   atomic.Int64 // monotonic: no refresh before
}

func (e *entry) age(now instant, cfg *Config) age {
	switch since := now.since(e.at); {
	case e.at.ended(e.verdict.Until, since):
		return spent
	case since < cfg.Fresh:
		return fresh
	case since < cfg.Grace: // never for NoGrace
		return stale
	}
	return spent
}

// due is true for the one check that shall refresh e.
func (e *entry) due(now instant) bool {
	retry := e.retry.Load()
	return int64(now.mono) >= retry && e.retry.CompareAndSwap(retry, int64(now.mono+retryPause))
}

// markUsed stores only what is news: hits on other processors share the line.
func (e *entry) markUsed() {
	if !e.used.Load() {
		e.used.Store(true)
	}
}

// denial is the last answer about somebody who is no customer. It holds no key:
// whoever presents random ones decides how long they are.
type denial struct {
	verdict license.Verdict
	at      instant
	key     digest
	subject string // asked for
}

func (d *denial) live(now instant, cfg *Config) bool {
	since := now.since(d.at)
	return since < cfg.Negative && !d.at.ended(d.verdict.Until, since)
}
