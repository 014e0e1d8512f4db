package meter

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// The LRU takes its lock for every look, so it is sharded.
const (
	limiterShards   = 16
	limiterSubjects = 65536
)

// allowance is what Rate was given.
type allowance struct {
	limit rate.Limit
	burst int
}

// limiters of a feature by allowance. They live here, not in the option, so that an
// option written inside a loop limits, too.
type limiters struct {
	mu  sync.Mutex
	all map[allowance]*limiter
}

func (l *limiters) of(a allowance) *limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.all[a]; known != nil {
		return known
	}
	if l.all == nil {
		l.all = map[allowance]*limiter{}
	}
	fresh := newLimiter(a)
	l.all[a] = fresh
	return fresh
}

// limiter holds each subject to an allowance.
type limiter struct {
	allowance
	seed   maphash.Seed
	shards [limiterShards]*lru.Cache[string, *rate.Limiter]
}

func newLimiter(a allowance) *limiter {
	l := &limiter{allowance: a, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i], _ = lru.New[string, *rate.Limiter](limiterSubjects / limiterShards) // fails for sizes below 1 only
	}
	return l
}

// allow takes one call of subject's allowance. Refused, it says when one is there
// again; 0 if never.
func (l *limiter) allow(subject string, now time.Time) (ok bool, retryAfter time.Duration) {
	of := l.of(subject)
	if of.AllowN(now, 1) {
		return true, 0
	}
	if l.limit <= 0 {
		return false, 0
	}
	missing := 1 - of.TokensAt(now)
	seconds := min(missing/float64(l.limit), maxRetryAfter.Seconds())
	return false, max(time.Duration(seconds*float64(time.Second)), 1)
}

// maxRetryAfter keeps tiny limits from overflowing a Duration.
const maxRetryAfter = 365 * 24 * time.Hour

func (l *limiter) of(subject string) *rate.Limiter {
	shard := l.shards[maphash.String(l.seed, subject)%limiterShards]
	if known, ok := shard.Get(subject); ok {
		return known
	}
	fresh := rate.NewLimiter(l.limit, l.burst)
	if known, ok, _ := shard.PeekOrAdd(strings.Clone(subject), fresh); ok {
		return known // another goroutine was first
	}
	return fresh
}
