package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/inprocess/meter/license"
)

// digests makes digests. A pointer to it prints as such.
type digests struct{ secret [sha256.Size]byte }

// digest is an HMAC under a secret of this cache: it stands for a text that is
// not to be kept, and nobody outside can choose two texts that share one.
type digest [sha256.Size]byte

func (c *Cache) identify(q license.Query) digest {
	return c.digest(q.Key.Reveal(), q.Subject, q.Feature, q.Machine)
}

func (c *Cache) digestKey(k license.Key) digest { return c.digest(k.Reveal()) }

func (c *Cache) digestSubject(subject string) digest { return c.digest("subject", subject) }

// digest writes lengths, too: ("a", "bc") is not ("ab", "c").
func (c *Cache) digest(parts ...string) (sum digest) {
	mac := hmac.New(sha256.New, c.digests.secret[:])
	var text []byte
	for _, part := range parts {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	mac.Write(text)
	mac.Sum(sum[:0])
	return sum
}
