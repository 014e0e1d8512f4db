package cache

import (
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/license"
)

// retryPause is the least time between two attempts to refresh one verdict. A
// license server that is down would else be asked at every check.
const retryPause = 10 * time.Second

// age is what a customer's verdict is good for.
type age uint8

const (
	spent age = iota // not to be answered
	stale            // to be answered, and refreshed
	fresh            // to be answered
)

// entry is the last good answer about a customer. It is a link of one of the lists
// in a table.
type entry struct {
	hash  uint64
	next  atomic.Pointer[entry]
	query license.Query
	sure  instant      // before this by both clocks it is fresh, in spite of a late tick
	used  atomic.Bool  // since it was last spared from eviction
	retry atomic.Int64 // monotonic: no refresh before

	verdict  license.Verdict
	at       instant
	restored bool // from the file: who was revoked meanwhile is found out at once

	elder, younger *entry // of the same holder; guarded by Cache.mu
}

// newEntry completes e, of which query, verdict, at and restored are known.
func newEntry(e *entry, cfg *Config) *entry {
	surely := min(cfg.Fresh, longest)
	if until := e.verdict.Until; !until.IsZero() {
		surely = min(surely, until.Sub(time.Unix(0, e.at.wall)))
	}
	if e.restored {
		surely = 0
	}
	e.sure = instant{e.at.mono + surely - margin, e.at.wall + int64(surely-margin)}
	return e
}

// longest bounds what is added to Unix time in nanoseconds.
const longest = 50 * 365 * 24 * time.Hour

func (e *entry) age(now instant, cfg *Config) age { return e.ageOf(now.since(e.at), cfg) }

func (e *entry) ageOf(since time.Duration, cfg *Config) age {
	switch {
	case e.at.ended(e.verdict.Until, since):
		return spent
	case since < cfg.Fresh && !e.restored:
		return fresh
	case since < cfg.Grace: // never for NoGrace
		return stale
	}
	return spent
}

// surelyFresh is what nearly all hits need to know.
func (e *entry) surelyFresh(glance *instant) bool {
	return glance.mono < e.sure.mono && glance.wall < e.sure.wall
}

// waits is true while e may be answered and is not due for a refresh: in an outage.
func (e *entry) waits(glance *instant, cfg *Config) bool {
	return int64(glance.mono) < e.retry.Load() && e.ageOf(glance.since(e.at)+margin, cfg) == stale
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
	revoked bool   // it ended what was allowed
	hearsay bool   // from the file, or said of another query: ask before it is answered
}

// live says that d is answered without asking again.
func (d *denial) live(now instant, cfg *Config) bool {
	since := now.since(d.at)
	return since < cfg.Negative && !d.hearsay && !d.at.ended(d.verdict.Until, since)
}

// stands says that d is answered when asking again has failed: grace is for those
// whom the license server would allow, not for those it has refused. What it said of
// the moment, and not of the customer, stands no longer than Negative.
func (d *denial) stands(now instant, cfg *Config) bool {
	switch d.verdict.Reason {
	case license.TooFast, license.OverQuota, license.Unavailable:
		return false
	}
	since := now.since(d.at)
	return since < cfg.Grace && !d.at.ended(d.verdict.Until, since)
}

// final says that a denial is about the key, whatever was asked.
func final(why license.Reason) bool {
	return why == license.Blocked || why == license.Expired || why == license.NotFound
}
