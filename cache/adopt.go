package cache

import "github.com/inprocess/meter/license"

// adopt takes over what another process has learned and written: of who is a customer,
// the newest answer counts. Ages are compared, which setting the clock makes no younger.
func (c *Cache) adopt(s *snapshot) {
	c.adoptKeys(s)
	now := c.clock.now()
	news := c.adoptInvalid(s, now)
	c.adoptAllowed(s, now)
	if news {
		c.endInvalid(now)
	}
	c.adoptDenials(s, now)
}

// adoptKeys takes over the keys of subjects that are not known here.
func (c *Cache) adoptKeys(s *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range s.Keys {
		if !c.keys.Contains(k.Subject) {
			c.keep(k.Subject, license.NewKey(k.Key))
		}
	}
}

// adoptInvalid takes over what another process was told to forget.
func (c *Cache) adoptInvalid(s *snapshot, now instant) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, at := range s.invalidated(now) {
		if own, ok := c.invalid.Peek(what); !ok || now.since(at) < now.since(own) {
			c.invalid.Add(what, at)
			news = true
		}
	}
	return news
}

// endInvalid forgets what another process was told to forget.
func (c *Cache) endInvalid(now instant) {
	for _, e := range c.allowed.Values() {
		if c.isInvalid(e, now) {
			c.replace(e, nil)
		}
	}
	for _, id := range c.denied.Keys() {
		if d, ok := c.denied.Peek(id); ok && d.revoked && c.isInvalidDenial(d, now) {
			c.denied.Remove(id)
		}
	}
}

func (c *Cache) isInvalid(e *entry, now instant) bool {
	return c.invalid.Len() > 0 &&
		c.invalidatedSince(e.at, now, c.digestKey(e.query.Key), c.digestSubject(e.query.Subject), c.digestSubject(e.verdict.Subject))
}

func (c *Cache) isInvalidDenial(d *denial, now instant) bool {
	return c.invalid.Len() > 0 &&
		c.invalidatedSince(d.at, now, d.key, c.digestSubject(d.subject), c.digestSubject(d.verdict.Subject))
}

func (c *Cache) invalidatedSince(at, now instant, what ...digest) bool {
	for _, what := range append(what, c.digest()) {
		if when, ok := c.invalid.Peek(what); ok && now.since(when) <= now.since(at) {
			return true
		}
	}
	return false
}

// replace ends e, unless it has been replaced already, by d; nil: by nothing.
func (c *Cache) replace(e *entry, d *denial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known.find(&e.query) != e {
		return
	}
	if d != nil {
		c.denied.Add(c.identify(e.query), d)
	}
	c.allowed.Remove(e.query)
}

// adoptAllowed takes over what another process has seen allowed after it was allowed
// here, or revoked.
func (c *Cache) adoptAllowed(s *snapshot, now instant) {
	if s.Wall > now.wall { // how old it is nobody knows
		return
	}
	for e := range s.entries(now) {
		if e.age(now, &c.cfg) == spent || !c.outdated(e, now) || c.isInvalid(e, now) {
			continue
		}
		c.mu.Lock()
		if c.outdated(e, now) { // still
			c.put(newEntry(e, &c.cfg))
			c.denied.Remove(c.identify(e.query))
		}
		c.mu.Unlock()
	}
}

// outdated says that what is known here of e's query is older than e, which then has to
// be refreshed as soon as that had.
func (c *Cache) outdated(e *entry, now instant) bool {
	if own := c.known.find(&e.query); own != nil {
		e.restored = own.restored
		return now.since(own.at) > now.since(e.at)
	}
	if c.denied.Len() == 0 {
		return false
	}
	d, ok := c.denied.Peek(c.identify(e.query))
	return ok && d.revoked && now.since(d.at) > now.since(e.at)
}

// adoptDenials ends what was allowed here before another process learned better, as
// revoke does. The customers are asked about again before it is answered.
func (c *Cache) adoptDenials(s *snapshot, now instant) {
	type about struct { // a holder
		key     digest
		subject string
	}
	denied, ended := map[digest]*denial{}, map[about]*denial{}
	younger := func(a, b *denial) bool { return b == nil || now.since(a.at) < now.since(b.at) }
	for id, d := range s.denials(now) {
		if now.since(d.at) >= c.cfg.memory() || c.isInvalidDenial(d, now) {
			continue
		}
		denied[id] = d
		if of := (about{d.key, d.subject}); final(d.verdict.Reason) && younger(d, ended[of]) {
			ended[of] = d
		}
	}
	if len(denied) == 0 {
		return
	}
	for _, e := range c.allowed.Values() {
		id := c.identify(e.query)
		d := denied[id]
		if f := ended[about{c.digestKey(e.query.Key), e.query.Subject}]; f != nil && younger(f, d) {
			d = f
		}
		switch {
		case d == nil:
		case now.since(d.at) <= now.since(e.at):
			c.replace(e, d)
		default:
			delete(denied, id)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, d := range denied {
		if own, _ := c.denied.Peek(id); younger(d, own) {
			c.denied.Add(id, d)
		}
	}
}
