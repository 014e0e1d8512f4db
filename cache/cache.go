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
//	denied, older                 the license server is asked; the denial stands, up to
//	                              Grace, if it can't be reached
//
// Only an answer changes what is remembered. An error never becomes a denial, and
// a denial beats grace at once: the first refresh that brings one ends what was
// allowed. A refresh starts with a check, so a customer who was revoked while away
// may be let through by the checks that come before its answer; NoGrace makes them
// wait for it.
//
// A denial because the key is not found, blocked or expired ends what was allowed to
// the same key and subject for other features and machines, too.
//
// Hits go by a clock that ticks ten times a second while there are any, and by the
// exact time in the last second before a verdict changes its age. Where the whole
// process stood still, the first hits after may come before the first tick.
//
// # File
//
// With Config.File, verdicts and the keys of customers survive the end of the
// process. A snapshot replaces the file a second after it has changed who is a
// customer, a minute after any other change, and at Close; with very many customers
// less often, so that writing takes a twentieth of the time at most. A process that
// is killed loses what is younger. What was read from the file is refreshed at its
// first use, and has as much of its grace left as if the process had run on. Setting
// the clock back does not prolong it: by more than a minute, it ends it.
//
// Several processes on one machine may have the same File, as in a rolling deploy. Each
// writes what it knows itself, with what those that wrote before it had learned later:
// whom the license server no longer allows or allows again, what was invalidated, and
// keys. What a process learns from the file so counts in its own memory, too.
//
// The snapshot holds license keys, encrypted and authenticated with AES-256-GCM. One
// that is damaged, tampered with or from somewhere else is not believed, nor is one that
// was written for a Checker of another Address() string, which names whose keys it
// checks; a Checker without that method has the address "". Where a Checker's settings
// change what a customer is allowed, the first refresh notices. The cache goes on
// without, says to the Logger and in Health what to do, and renames the snapshot to
// File + ".unreadable" just before it writes its first own one in that place, so as a
// rule a second after the first customer was allowed. Customers are then asked about
// anew, and usage of those who don't come again waits for their key. An older snapshot
// of the same cache can't be told from the newest: whoever can replace the file can
// bring back a customer who was revoked, until the first refresh.
//
// Without Config.Secret, the secret is made at the first start and kept beside the
// snapshot, in File + ".key". Then whoever can read that directory can read the keys:
// the encryption protects a snapshot that gets away alone, not the disk. A Secret
// from where the host keeps its others protects both. On Unix only this process's
// user can read the files; elsewhere they inherit what the directory allows.
package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	cfg      Config
	fault    error
	clock    clock
	budget   budget
	overRate error
	digests  *digests
	stats    stats
	silence  func() // of stats
	address  string // of the Checker
	file     *file  // nil: none

	// Denials have a cache of their own, so that random keys can't evict customers.
	// Maps hash under a seed of their own, and a Key in them is compared by identity,
	// not by text.
	allowed *lru.Cache[license.Query, *entry]
	denied  *lru.Cache[digest, *denial]
	invalid *lru.Cache[digest, instant]     // what was invalidated, and when: for other processes
	keys    *lru.Cache[string, license.Key] // by subject
	known   table                           // the same as allowed, which takes its lock for every look

	life  context.Context // of calls to the Checker; Close ends it
	end   context.CancelFunc
	calls sync.WaitGroup
	close func() error

	mu         sync.Mutex // never held while the Checker is asked or a file written; not taken by hits
	flights    flights
	circuits   circuits
	unanswered unanswered
	told       instant // of a failure
	closed     bool
}

// New returns a cache with a copy of cfg. It starts nothing in the background: a
// cache without calls does no work. If cfg is faulty, Validate and every Check say
// how.
//
// Blocking: with File, until it is read.
func New(cfg Config) *Cache {
	cfg = cfg.withDefaults()
	c := &Cache{
		cfg:      cfg,
		fault:    cfg.validate(),
		budget:   newBudget(cfg.Rate),
		overRate: fmt.Errorf("cache: Checker not asked: the %v calls a second of Config.Rate are used up", cfg.Rate),
		digests:  new(digests),
		silence:  func() {},
		keys:     newKeys(cfg.Size),
		known:    newTable(max(cfg.Size, 1)),
		flights:  flights{},
	}
	c.cfg.Secret = nil // must not be printed
	c.clock.start = time.Now()
	c.told = instant{mono: -toldPause}
	rand.Read(c.digests.secret[:]) // never fails: it ends the process instead
	// They fail for sizes below 1 only; then c.fault says so.
	c.allowed, _ = lru.NewWithEvict(max(cfg.Size, 1), func(q license.Query, _ *entry) { c.known.remove(&q) })
	c.denied, _ = lru.New[digest, *denial](max(cfg.NegativeMax, 1))
	c.invalid, _ = lru.New[digest, instant](max(cfg.NegativeMax, 1))
	c.life, c.end = context.WithCancel(context.Background())
	c.close = sync.OnceValue(c.shutdown)
	if c.fault == nil {
		c.fault = c.open(cfg)
	}
	return c
}

// open starts what may fail.
func (c *Cache) open(cfg Config) (err error) {
	if cfg.File != "" {
		cfg.Secret = bytes.Clone(cfg.Secret)
		if a, ok := cfg.Checker.(interface{ Address() string }); ok {
			c.address = a.Address()
		}
		if c.file, err = openFile(&cfg, c.address, c.encode, c.restore, c.adopt); err != nil {
			return fmt.Errorf("cache: Config.File: %w", err)
		}
		if c.digests.secret, err = c.file.seal.digests(); err != nil {
			return fmt.Errorf("cache: Config.File: %w", err)
		}
	}
	if cfg.MeterProvider != nil {
		silence, err := c.publish(cfg.MeterProvider)
		if err != nil {
			return fmt.Errorf("cache: Config.MeterProvider: %w", err)
		}
		c.silence = silence
	}
	return nil
}

// Check answers q from memory if it can, and else from the Checker.
//
// Guarantee: the Checker is asked at most once at a time for equal queries, and at
// most Rate times a second. When it has failed five times in a row, it is asked by
// one call at a time, after pauses of 1 to 10 s, until it answers; an error with a
// method RetryAfter() time.Duration begins such a pause at once, of at most 5 min, and
// one with a method AboutQuery() bool that returns true, because the fault is the
// query's and another might be answered, is none of the five. A caller that leaves does not cancel the others' question. Fields of the verdict are
// as old as the verdict: Quota.Used does not grow between refreshes.
// Blocking: not from memory; else until the Checker answers, ctx ends, or 10 s have
// passed, after which the Checker's context has ended. Not while it is paused.
// Errors: unknown, never denied: those of the Checker, also when it panics or
// answers nonsense; the end of ctx; Rate is used up; the Checker is paused, with a
// method RetryAfter() time.Duration and the last error of the Checker inside; after
// Close, nothing usable is in memory; those of Validate.
func (c *Cache) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	if now := c.clock.glance(); now != nil {
		if e := c.known.find(&q); e != nil && (e.surelyFresh(now) || e.waits(now, &c.cfg)) {
			e.markUsed()
			c.stats.hits.add()
			return e.verdict, nil
		}
	}
	return c.check(ctx, q)
}

// check is Check by the exact time.
func (c *Cache) check(ctx context.Context, q license.Query) (license.Verdict, error) {
	if c.fault != nil {
		return license.Verdict{}, c.fault
	}
	now := c.clock.now()
	if e, age := c.lookup(&q, now); age != spent {
		if age == stale && e.due(now) {
			c.refresh(ctx, q)
		}
		c.clock.wake()
		e.markUsed()
		c.stats.hits.add()
		return e.verdict, nil
	}
	id := c.identify(q)
	if d := c.denial(id, now); d != nil {
		c.stats.denials.Add(1)
		return d.verdict, nil
	}
	return c.ask(ctx, q, id)
}

// Validate says what is wrong with the Config, all of it, and with the Checker's
// own if it has a Validate. It does not use the network.
//
// Errors: one per fault, joined, each with the name of its field.
func (c *Cache) Validate() error { return c.fault }

func (c *Cache) paused() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.circuits.open() != nil {
		return 1
	}
	return 0
}

// Close writes the snapshot, cancels the calls to the Checker, waits for them, and
// closes the Checker if it is an io.Closer. What is in memory is still answered,
// while it is younger than Grace.
//
// Blocking: the disk; until the Checker has returned. Later callers wait for the same
// end.
// Errors: the snapshot could not be written; that of the Checker's Close, at every
// call.
func (c *Cache) Close() error { return c.close() }

func (c *Cache) shutdown() error {
	c.silence()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.file.flush() // the Checker may not return
	c.calls.Wait()
	err := c.file.close()
	if closer, ok := c.cfg.Checker.(io.Closer); ok && !isNil(c.cfg.Checker) {
		err = errors.Join(err, closer.Close())
	}
	return err
}
