package cache

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"iter"
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
	Allowed []savedEntry
	Revoked []savedDenial
	Invalid []savedInvalid
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

// savedInvalid is what was invalidated.
type savedInvalid struct {
	What []byte // a digest
	Age  time.Duration
	At   int64 // wall clock
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
	at, ok = restoreAge(s.Age, s.At, now, passed)
	return v, at, ok
}

func restoreAge(age time.Duration, wall int64, now instant, passed time.Duration) (at instant, ok bool) {
	return instant{now.mono - age - passed, wall}, age >= 0 && age < longest
}

// encode returns a snapshot, in clear.
func (c *Cache) encode() ([]byte, error) {
	c.mu.Lock()
	allowed, denied := c.allowed.Values(), c.denied.Keys()
	now := c.clock.now()
	s := snapshot{Wall: now.wall, Address: c.address, Allowed: make([]savedEntry, 0, len(allowed))}
	for _, id := range denied {
		if d, ok := c.denied.Peek(id); ok && d.revoked {
			s.Revoked = append(s.Revoked, savedDenial{id[:], d.key[:], d.subject, save(d.verdict, d.at, now)})
		}
	}
	for _, what := range c.invalid.Keys() {
		if at, ok := c.invalid.Peek(what); ok && now.since(at) < c.cfg.memory() {
			s.Invalid = append(s.Invalid, savedInvalid{what[:], now.since(at), at.wall})
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
	c.adoptKeys(s)
	now := c.clock.now()
	if ahead := time.Unix(0, s.Wall).Sub(time.Unix(0, now.wall)); ahead > maxSetback {
		return fmt.Errorf("they are from %v in the future: the clock was set back, and how old they are nobody knows", ahead)
	}
	for id, d := range s.denials(now) {
		c.denied.Add(id, d)
	}
	for what, at := range s.invalidated(now) {
		c.invalid.Add(what, at)
	}
	for e := range s.entries(now) {
		if e.age(now, &c.cfg) != spent {
			c.put(newEntry(e, &c.cfg))
		}
	}
	return nil
}

// passed is the time since the snapshot was taken.
func (s *snapshot) passed(now instant) time.Duration {
	return min(max(time.Unix(0, now.wall).Sub(time.Unix(0, s.Wall)), 0), longest)
}

func (s *snapshot) denials(now instant) iter.Seq2[digest, *denial] {
	passed := s.passed(now)
	return func(yield func(digest, *denial) bool) {
		for _, r := range s.Revoked {
			v, at, ok := r.Verdict.restore(license.Denied, now, passed)
			if !ok || len(r.Query) != len(digest{}) || len(r.Key) != len(digest{}) {
				continue
			}
			if !yield(digest(r.Query), &denial{verdict: v, at: at, key: digest(r.Key), subject: r.Subject, revoked: true, hearsay: true}) {
				return
			}
		}
	}
}

func (s *snapshot) invalidated(now instant) iter.Seq2[digest, instant] {
	passed := s.passed(now)
	return func(yield func(digest, instant) bool) {
		for _, i := range s.Invalid {
			at, ok := restoreAge(i.Age, i.At, now, passed)
			if ok && len(i.What) == len(digest{}) && !yield(digest(i.What), at) {
				return
			}
		}
	}
}

func (s *snapshot) entries(now instant) iter.Seq[*entry] {
	passed := s.passed(now)
	return func(yield func(*entry) bool) {
		for _, a := range s.Allowed {
			v, at, ok := a.Verdict.restore(license.Allowed, now, passed)
			e := &entry{
				query:   license.Query{Key: license.NewKey(a.Key), Subject: a.Subject, Feature: a.Feature, Machine: a.Machine},
				verdict: v, at: at, restored: true,
			}
			if ok && unsound(v, e.query) == nil && !yield(e) {
				return
			}
		}
	}
}
