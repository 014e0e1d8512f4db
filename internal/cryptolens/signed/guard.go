package signed

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/license"
)

// ClockSkew is how far the clocks of the license server and of this machine may
// differ.
const ClockSkew = time.Hour

// remembered bounds the keys of which a Guard knows the newest license. Only real
// keys get there, each by a license that was verified.
const remembered = 100_000

// Guard keeps licenses out that were signed too long ago, or before one of the same
// key that was seen already: who can replay old answers can't undo a block. It
// remembers the 100,000 keys used last, until the process ends.
//
// Concurrency: safe.
type Guard struct {
	maxAge time.Duration

	mu     sync.Mutex
	newest time.Time                          // SignDate of all
	seen   *lru.Cache[license.Key, time.Time] // SignDate of each
}

// NewGuard returns a guard that accepts licenses signed up to maxAge ago; 0: any.
func NewGuard(maxAge time.Duration) *Guard {
	seen, _ := lru.New[license.Key, time.Time](remembered) // fails for sizes below 1 only
	return &Guard{maxAge: maxAge, seen: seen}
}

// Newest is the SignDate of the newest license of key that Admit has let in; zero:
// none. Take it before asking for a license: answers to questions asked at the same
// time may overtake each other, and are no replay.
func (g *Guard) Newest(key license.Key) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	newest, _ := g.seen.Get(key)
	return newest
}

// Remember lets in nothing older than signed for key, as if it had been seen.
func (g *Guard) Remember(key license.Key, signed time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remember(key, signed)
}

func (g *Guard) remember(key license.Key, signed time.Time) {
	if newest, _ := g.seen.Get(key); signed.After(newest) {
		g.seen.Add(key, signed)
	}
	if signed.After(g.newest) {
		g.newest = signed
	}
}

// Now is the later of now and the newest SignDate: a clock that was set back does
// not turn back time.
func (g *Guard) Now(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now(now)
}

func (g *Guard) now(now time.Time) time.Time {
	if g.newest.After(now) {
		return g.newest
	}
	return now
}

// Admit lets l in if it is not older than since, which is Newest of its key, and
// not too old.
//
// Errors: ErrReplayed, ErrTooOld; ErrClock where l was signed more than ClockSkew
// after now.
func (g *Guard) Admit(l *License, since, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ahead := l.SignDate.Sub(now); ahead > ClockSkew {
		return fmt.Errorf("the license was signed at %s, and here it is %s: %w",
			l.SignDate.Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrClock)
	}
	if l.SignDate.Before(since) {
		return fmt.Errorf("the license, signed at %s, %w, signed at %s",
			l.SignDate.Format(time.RFC3339), ErrReplayed, since.UTC().Format(time.RFC3339))
	}
	if err := g.tooOld(l, now); err != nil {
		return err
	}
	g.remember(l.Key, l.SignDate)
	return nil
}

// StillGood says whether l, which was let in, has grown too old since.
//
// Errors: ErrTooOld.
func (g *Guard) StillGood(l *License, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tooOld(l, now)
}

func (g *Guard) tooOld(l *License, now time.Time) error {
	if end := g.End(l); !end.IsZero() && !g.now(now).Before(end) {
		return fmt.Errorf("the license %w: at %s, and %v is the most", ErrTooOld, l.SignDate.Format(time.RFC3339), g.maxAge)
	}
	return nil
}

// End is when l will be too old; zero: never.
func (g *Guard) End(l *License) time.Time {
	if g.maxAge == 0 {
		return time.Time{}
	}
	return l.SignDate.Add(g.maxAge)
}
