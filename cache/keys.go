package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/inprocess/meter/license"
)

// minKeys is how many subjects' keys are kept at the least. They are small, and a
// count whose key is forgotten can't be billed.
const minKeys = 100_000

// ErrNoKey says that no key is known for a subject.
var ErrNoKey = errors.New("cache: no key was allowed for this subject")

func newKeys(size int) *lru.Cache[string, license.Key] {
	keys, _ := lru.New[string, license.Key](max(size, minKeys)) // fails for sizes below 1 only
	return keys
}

// Key returns the key that was last allowed for subject, by the subject of the
// verdict. It is for sinks that bill by key: counts of before are billed to it,
// so it is kept when the key is denied, invalidated or older than Grace, and with
// File beyond the end of the process. The keys of as many subjects as Size, but at
// least 100,000, are kept; those not allowed for longest go first.
//
// That it is the subject's is the Checker's word. One that allows by the subject of the
// query and does not look at the key, as stripelicense does without KeyMetadata, gives
// it for any key that a caller presents, also somebody else's: don't bill by Key then,
// or let Identify leave the key out.
//
// Blocking: never; ctx is not looked at.
// Errors: ErrNoKey.
func (c *Cache) Key(_ context.Context, subject string) (license.Key, error) {
	if k, ok := c.keys.Peek(subject); ok {
		return k, nil
	}
	return license.Key{}, fmt.Errorf("%w: subject %q: one is, once the customer calls again", ErrNoKey, subject)
}

// keepFirst remembers whose key it is, from an answer that is not to be remembered
// otherwise: whoever waits for it is let through, and counted. c.mu is held.
func (c *Cache) keepFirst(subject string, k license.Key) {
	if !c.keys.Contains(subject) && c.keep(subject, k) {
		c.file.changed(soon)
	}
}

// keep remembers whose key it is, and says whether that is news.
func (c *Cache) keep(subject string, k license.Key) (news bool) {
	if subject == "" || k.IsZero() {
		return false
	}
	before, _ := c.keys.Get(subject)
	if before != k {
		c.keys.Add(strings.Clone(subject), k)
	}
	return before != k
}
