package cache

import (
	"cmp"
	"strings"

	"github.com/inprocess/meter/license"
)

// spared bounds how many used entries one newcomer may pass over.
const spared = 1000

// lookup finds the customer's verdict without a lock: the LRU's Get takes one
// exclusively, and hits would queue. The mark in the entry tells makeRoom what Get
// would have told the LRU.
func (c *Cache) lookup(q *license.Query, now instant) (*entry, age) {
	e := c.known.find(q)
	if e == nil {
		return nil, spent
	}
	return e, e.age(now, &c.cfg)
}

// denial finds a denial that may still be answered, or nil.
func (c *Cache) denial(id digest, now instant) *denial {
	d, ok := c.denied.Peek(id)
	if !ok || !d.live(now, &c.cfg) {
		return nil
	}
	return d
}

// store remembers an answer. c.mu is held. A check that runs meanwhile finds the
// old verdict or the new one: the denial goes in before what it revokes goes out.
func (c *Cache) store(q license.Query, id digest, v license.Verdict) {
	now := c.clock.now()
	if v.Status == license.Denied {
		last, again := c.denied.Peek(id)
		d := &denial{verdict: v, at: now, key: c.digestKey(q.Key), subject: strings.Clone(q.Subject)}
		d.revoked = c.allowed.Contains(q) || again && last.revoked
		c.denied.Add(id, d)
		ended := c.allowed.Remove(q)
		if c.revoke(q, d) || ended {
			c.file.changed(soon)
		}
		return
	}
	// These may be parts of a request.
	q.Subject, q.Feature, q.Machine = strings.Clone(q.Subject), strings.Clone(q.Feature), strings.Clone(q.Machine)
	c.put(newEntry(&entry{query: q, verdict: v, at: now}, &c.cfg))
	pardoned := c.denied.Remove(id)
	if c.keep(cmp.Or(v.Subject, q.Subject), q.Key) || pardoned {
		c.file.changed(soon)
	} else {
		c.file.changed(later)
	}
}

// revoke ends what else was allowed to a customer who is one no more, if there is
// anything: for other features, grace must not go on, also if this one was never
// allowed. c.mu is held.
func (c *Cache) revoke(q license.Query, d *denial) (ended bool) {
	if !final(d.verdict.Reason) {
		return false
	}
	who := holderOf(&q)
	for _, f := range c.flights[who] {
		f.overtaken = true
	}
	for e := c.known.kin[who]; e != nil; e = c.known.kin[who] {
		hearsay := *d
		hearsay.hearsay, hearsay.revoked = true, true
		c.denied.Add(c.identify(e.query), &hearsay)
		c.allowed.Remove(e.query)
		ended = true
	}
	return ended
}

// put adds e to the table, too, which the LRU tells what it evicts. c.mu is held.
func (c *Cache) put(e *entry) {
	if !c.allowed.Contains(e.query) {
		c.makeRoom()
	}
	c.allowed.Add(e.query, e)
	c.known.put(e)
}

// makeRoom gives entries used since the last time a second chance, so that the
// LRU's oldest, which goes next, is one that nobody has used.
func (c *Cache) makeRoom() {
	if c.allowed.Len() < c.cfg.Size {
		return
	}
	for range spared {
		q, oldest, ok := c.allowed.GetOldest()
		if !ok || !oldest.used.Swap(false) {
			return
		}
		c.allowed.Get(q)
	}
}

// Invalidate forgets what is known about queries with this key: the next check
// asks the Checker, and if there is no answer, it is unknown. Answers under way are
// given to those who wait, and not kept. The zero Key: nothing.
func (c *Cache) Invalidate(k license.Key) {
	if k.IsZero() {
		return
	}
	key := c.digestKey(k)
	c.forget(key,
		func(who holder) bool { return who.key == k },
		func(q license.Query, _ *entry) bool { return q.Key == k },
		func(d *denial) bool { return d.key == key },
	)
}

// InvalidateSubject forgets what is known about a subject, whether it was asked
// for or answered; else as Invalidate. "": nothing.
func (c *Cache) InvalidateSubject(subject string) {
	if subject == "" {
		return
	}
	c.forget(c.digestSubject(subject),
		func(holder) bool { return true }, // the answer may name it
		func(q license.Query, e *entry) bool { return q.Subject == subject || e.verdict.Subject == subject },
		func(d *denial) bool { return d.subject == subject || d.verdict.Subject == subject },
	)
}

// InvalidateAll forgets everything; else as Invalidate.
func (c *Cache) InvalidateAll() {
	c.forget(c.digest(),
		func(holder) bool { return true },
		func(license.Query, *entry) bool { return true },
		func(*denial) bool { return true },
	)
}

// forget removes what matches. An answer asked for before may be older than the
// reason to forget: a flight that is no longer listed does not store it.
func (c *Cache) forget(what digest, flying func(holder) bool, kept func(license.Query, *entry) bool, refused func(*denial) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.file.changed(soon)
	c.invalid.Add(what, c.clock.now())
	for who := range c.flights {
		if flying(who) {
			delete(c.flights, who)
		}
	}
	for _, q := range c.allowed.Keys() {
		if e, ok := c.allowed.Peek(q); ok && kept(q, e) {
			c.allowed.Remove(q)
		}
	}
	for _, id := range c.denied.Keys() {
		if d, ok := c.denied.Peek(id); ok && refused(d) {
			c.denied.Remove(id)
		}
	}
}
