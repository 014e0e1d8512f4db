package meter

import (
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/inprocess/meter/internal/ledger"
	"golang.org/x/time/rate"
)

const (
	// limiterSubjects are remembered by one limiter.
	limiterSubjects = 65536
	// limiterSpared bounds how many used accounts one newcomer may pass over.
	limiterSpared = 1000
	// maxRetryAfter keeps tiny limits from overflowing a Duration.
	maxRetryAfter = 365 * 24 * time.Hour
)

// allowance is what Rate was given.
type allowance struct {
	limit rate.Limit
	burst int
}

// next is the time after which the whole tokens of left are one more; 0 if never.
func (a allowance) next(left float64) time.Duration {
	if a.limit <= 0 {
		return 0
	}
	missing := math.Floor(left) + 1 - left
	seconds := min(missing/float64(a.limit), maxRetryAfter.Seconds())
	return max(time.Duration(seconds*float64(time.Second)), 1)
}

// limiters of a feature by allowance. They live here, not in the option, so that an
// option written inside a loop limits, too.
type limiters struct {
	feature string
	mu      sync.Mutex
	all     map[allowance]*limiter
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
	fresh := newLimiter(l.feature, a)
	l.all[a] = fresh
	return fresh
}

// limiter holds each subject to an allowance. The LRU owns capacity and eviction,
// and moves an entry at every look, which takes a lock. So hits are served beside
// it, and leave a mark that tells it what it would have noticed.
type limiter struct {
	allowance
	fields rateFields

	hits sync.Map // subject to *account, the same as all

	mu  sync.Mutex // not taken by hits
	all *simplelru.LRU[string, *account]
}

// account is what a limiter knows of one subject, found once per call.
type account struct {
	tokens *rate.Limiter
	series atomic.Pointer[ledger.Series] // nil: nothing was counted yet
	tally  atomic.Pointer[ledger.Tally]  // nil: no quota was looked for yet
	used   atomic.Bool                   // since it was last spared from eviction
}

func newLimiter(feature string, a allowance) *limiter {
	l := &limiter{allowance: a, fields: fieldsOf(feature, a)}
	l.all, _ = simplelru.NewLRU(limiterSubjects, func(subject string, _ *account) { l.hits.Delete(subject) }) // fails for sizes below 1 only
	return l
}

func (l *limiter) account(subject string) *account {
	if known, ok := l.hits.Load(subject); ok {
		a := known.(*account)
		if !a.used.Load() { // hits on other processors share the line
			a.used.Store(true)
		}
		return a
	}
	return l.open(subject)
}

func (l *limiter) open(subject string) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.all.Peek(subject); ok {
		return known // another goroutine was first
	}
	l.makeRoom()
	subject = strings.Clone(subject) // it may be part of a request
	a := &account{tokens: rate.NewLimiter(l.limit, l.burst)}
	l.all.Add(subject, a)
	l.hits.Store(subject, a)
	return a
}

// makeRoom gives accounts used since the last time a second chance, so that the
// LRU's oldest, which goes next, is one that nobody has used.
func (l *limiter) makeRoom() {
	if l.all.Len() < limiterSubjects {
		return
	}
	for range limiterSpared {
		subject, oldest, _ := l.all.GetOldest()
		if !oldest.used.Swap(false) {
			return
		}
		l.all.Get(subject)
	}
}

// add counts n for the subject, whose series it looks up once.
func (a *account) add(f *ledger.Feature, subject string, n int64) error {
	if s := a.series.Load(); s != nil {
		return s.Add(n)
	}
	s, err := f.Series(subject, nil)
	if err != nil {
		return err
	}
	a.series.Store(s)
	return s.Add(n)
}
