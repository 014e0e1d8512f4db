package cache

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"time"

	"github.com/inprocess/meter/license"
)

// maxSetback is how far the clock may be behind a snapshot for its verdicts to be
// believed. They are not younger than they were, but who knows how much older.
const maxSetback = time.Minute

// snapshot is what outlives the process. Its lists are in the order of use.
type snapshot struct {
	Wall    int64  // when it was taken
	Address string // of the Checker whose verdicts they are
	Digests []byte
	Allowed []savedEntry
	Revoked []savedDenial
	Keys    []savedKey
}

type savedEntry struct {
	Key, Subject, Feature, Machine string // of the query
	Verdict                        savedVerdict
}

type savedDenial struct {
	Query, Key []byte // digests
	Subject    string
	Verdict    savedVerdict
}

type savedKey struct{ Subject, Key string }

// savedVerdict has the age as it was, which no clock set back can take from it.
type savedVerdict struct {
	Age     time.Duration
	At      int64 // wall clock
	Reason  license.Reason
	Subject string
	Until   time.Time
	Quota   *license.Quota
}

func save(v license.Verdict, at, now instant) savedVerdict {
	s := savedVerdict{Age: now.since(at), At: at.wall, Reason: v.Reason, Subject: v.Subject, Until: v.Until.UTC()} // gob takes no odd zones
	if v.Quota != nil {
		q := *v.Quota
		q.Start, q.End = q.Start.UTC(), q.End.UTC()
		s.Quota = &q
	}
	return s
}

// restore is ok unless s makes no sense.
func (s *savedVerdict) restore(status license.Status, now instant, passed time.Duration) (v license.Verdict, at instant, ok bool) {
	v = license.Verdict{Status: status, Reason: s.Reason, Subject: s.Subject, Until: s.Until, Quota: s.Quota}
	return v, instant{now.mono - s.Age - passed, s.At}, s.Age >= 0 && s.Age < longest
}

// encode returns a snapshot, in clear.
func (c *Cache) encode() ([]byte, error) {
	c.mu.Lock()
	allowed, denied := c.allowed.Values(), c.denied.Keys()
	now := c.clock.now()
	s := snapshot{Wall: now.wall, Address: c.address, Digests: c.digests.secret[:], Allowed: make([]savedEntry, 0, len(allowed))}
	for _, id := range denied {
		if d, ok := c.denied.Peek(id); ok && d.revoked {
			s.Revoked = append(s.Revoked, savedDenial{id[:], d.key[:], d.subject, save(d.verdict, d.at, now)})
		}
	}
	for _, subject := range c.keys.Keys() {
		if k, ok := c.keys.Peek(subject); ok {
			s.Keys = append(s.Keys, savedKey{subject, k.Reveal()})
		}
	}
	c.mu.Unlock()
	for _, e := range allowed {
		s.Allowed = append(s.Allowed, savedEntry{e.query.Key.Reveal(), e.query.Subject, e.query.Feature, e.query.Machine, save(e.verdict, e.at, now)})
	}
	var text bytes.Buffer
	err := gob.NewEncoder(&text).Encode(s)
	return text.Bytes(), err
}

func decode(plain []byte) (*snapshot, error) {
	var s snapshot
	if err := gob.NewDecoder(bytes.NewReader(plain)).Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return &s, nil
}

// restore takes over what s remembers, before the cache is used.
//
// Errors: the verdicts are not to be believed; keys are taken over nevertheless.
func (c *Cache) restore(s *snapshot) error {
	c.adopt(s)
	now := c.clock.now()
	passed := time.Unix(0, now.wall).Sub(time.Unix(0, s.Wall))
	if passed < -maxSetback {
		return fmt.Errorf("they are from %v in the future: the clock was set back, and how old they are nobody knows", -passed)
	}
	passed = min(max(passed, 0), longest)
	if len(s.Digests) != len(c.digests.secret) {
		return fmt.Errorf("%w: no secret of digests", errUnreadable)
	}
	c.digests.secret = [32]byte(s.Digests)
	for _, r := range s.Revoked {
		v, at, ok := r.Verdict.restore(license.Denied, now, passed)
		if ok && len(r.Query) == len(digest{}) && len(r.Key) == len(digest{}) {
			c.denied.Add(digest(r.Query), &denial{verdict: v, at: at, key: digest(r.Key), subject: r.Subject, revoked: true, hearsay: true})
		}
	}
	for _, a := range s.Allowed {
		v, at, ok := a.Verdict.restore(license.Allowed, now, passed)
		e := &entry{
			query:   license.Query{Key: license.NewKey(a.Key), Subject: a.Subject, Feature: a.Feature, Machine: a.Machine},
			verdict: v, at: at, restored: true,
		}
		if ok && e.age(now, &c.cfg) != spent && unsound(v, e.query) == nil {
			c.put(newEntry(e, &c.cfg))
		}
	}
	return nil
}

// adopt takes over the keys of subjects that are not known here.
func (c *Cache) adopt(s *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range s.Keys {
		if !c.keys.Contains(k.Subject) {
			c.keep(k.Subject, license.NewKey(k.Key))
		}
	}
}
