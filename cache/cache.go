// Package cache answers license checks from memory, so that a call does not wait
// for the license server and an outage of it does not stop paying customers.
//
// A [Cache] is a [license.Checker] around another one. What it does with a verdict
// depends on how long ago the license server gave it:
//
//	allowed, younger than Fresh   answered from memory
//	allowed, younger than Grace   answered from memory, while one refresh runs behind it
//	allowed, older, or past its   the license server is asked, and its error, if it
//	Until                         can't be reached, is the answer: unknown
//	denied, younger than Negative answered from memory
//	denied, older                 the license server is asked
//
// Only an answer changes what is remembered. An error never becomes a denial, and
// a denial beats grace at once: the first refresh that brings one ends what was
// allowed. A refresh starts with a check, so a customer who was revoked while away
// may be let through by the checks that come before its answer; NoGrace makes them
// wait for it.
//
// Verdicts do not survive the end of the process.
package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/license"
)

var _ license.Checker = (*Cache)(nil)

var errClosed = errors.New("cache: closed, so the Checker is not asked")

// Cache is a [license.Checker] that answers from memory. Make it with [New]; the
// zero value does not work.
//
// Concurrency: every method is safe for concurrent use.
type Cache struct {
	cfg    Config
	fault  error
	start  time.Time
	budget budget
	secret [32]byte // of digests

	// Denials have a cache of their own, so that random keys can't evict customers.
	// Maps hash under a seed of their own, and a Key in them is compared by identity,
	// not by text.
	allowed *lru.Cache[license.Query, *entry]
	denied  *lru.Cache[digest, *denial]
	hits    sync.Map // the same as allowed, which takes its lock for every look

	life  context.Context // of calls to the Checker; Close ends it
	end   context.CancelFunc
	calls sync.WaitGroup
	close func() error

	mu      sync.Mutex // never held while the Checker is asked; not taken by hits
	flights map[license.Query]*flight
	closed  bool
}

// New returns a cache with a copy of cfg. It starts nothing in the background: a
// cache without calls does no work. If cfg is faulty, Validate and every Check say
// how.
func New(cfg Config) *Cache {
	cfg = cfg.withDefaults()
	c := &Cache{
		cfg:     cfg,
		fault:   cfg.validate(),
		start:   time.Now(),
		budget:  newBudget(cfg.Rate),
		flights: map[license.Query]*flight{},
	}
	rand.Read(c.secret[:]) // never fails: it ends the process instead
	// Both fail for sizes below 1 only; then c.fault says so.
	c.allowed, _ = lru.NewWithEvict(max(cfg.Size, 1), func(q license.Query, _ *entry) { c.hits.Delete(q) })
	c.denied, _ = lru.New[digest, *denial](max(cfg.NegativeMax, 1))
	c.life, c.end = context.WithCancel(context.Background())
	c.close = sync.OnceValue(c.shutdown)
	return c
}

// Check answers q from memory if it can, and else from the Checker.
//
// Guarantee: the Checker is asked at most once at a time for equal queries, and at
// most Rate times a second. A caller that leaves does not cancel the others'
// question. Fields of the verdict are as old as the verdict: Quota.Used does not
// grow between refreshes.
// Blocking: not from memory; else until the Checker answers, ctx ends, or 10 s have
// passed, after which the Checker's context has ended.
// Errors: unknown, never denied: those of the Checker, also when it panics or
// answers nonsense; the end of ctx; Rate is used up; after Close, nothing usable is
// in memory; those of Validate.
func (c *Cache) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	if c.fault != nil {
		return license.Verdict{}, c.fault
	}
	now := c.now()
	if e, age := c.lookup(q, now); age != spent {
		if age == stale && e.due(now) {
			c.refresh(ctx, q)
		}
		e.markUsed()
		return e.verdict, nil
	}
	id := c.identify(q)
	if d := c.denial(id, now); d != nil {
		return d.verdict, nil
	}
	return c.ask(ctx, q, id)
}

// Validate says what is wrong with the Config, all of it, and with the Checker's
// own if it has a Validate. It does not use the network.
//
// Errors: one per fault, joined, each with the name of its field.
func (c *Cache) Validate() error { return c.fault }

// Close cancels the calls to the Checker, waits for them, and closes the Checker
// if it is an io.Closer. What is in memory is still answered, while it is younger
// than Grace.
//
// Blocking: until the Checker has returned. Later callers wait for the same end.
// Errors: that of the Checker's Close, at every call.
func (c *Cache) Close() error { return c.close() }

func (c *Cache) shutdown() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.calls.Wait()
	if closer, ok := c.cfg.Checker.(io.Closer); ok && !isNil(c.cfg.Checker) {
		return closer.Close()
	}
	return nil
}

func (c *Cache) now() instant {
	now := time.Now()
	return instant{now.Sub(c.start), now.UnixNano()}
}
