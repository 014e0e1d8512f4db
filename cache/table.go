package cache

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/inprocess/meter/license"
)

// maxHeads bounds the lists of a table, 8 bytes each, for Sizes out of the ordinary.
const maxHeads = 1 << 20

// table finds entries without a lock. A sync.Map would hash every query twice as
// slowly, through an interface.
//
// Whoever changes it holds Cache.mu. An entry that was removed still leads to those
// behind it, so that a look that stands on it goes on.
type table struct {
	seed  maphash.Seed // so that nobody outside can choose queries that share a list
	heads []atomic.Pointer[entry]
	kin   kin
}

func newTable(size int) table {
	heads := min(1<<bits.Len(uint(min(size, maxHeads)-1)), maxHeads)
	return table{maphash.MakeSeed(), make([]atomic.Pointer[entry], heads), kin{}}
}

// hash takes the fields one by one: maphash.Comparable of the whole query would walk
// it by reflection, which costs four times as much.
func (t *table) hash(q *license.Query) uint64 {
	h := maphash.Comparable(t.seed, q.Key)
	h = t.mix(h, q.Subject)
	h = t.mix(h, q.Feature)
	return t.mix(h, q.Machine)
}

// mix makes a difference by the place of part, too.
func (t *table) mix(h uint64, part string) uint64 {
	h = bits.RotateLeft64(h, 21)
	if part != "" {
		h ^= maphash.String(t.seed, part)
	}
	return h
}

func (t *table) find(q *license.Query) *entry {
	h := t.hash(q)
	e := t.heads[h&uint64(len(t.heads)-1)].Load()
	for e != nil && !(e.hash == h && e.query == *q) {
		e = e.next.Load()
	}
	return e
}

// put adds e, in the place of the entry of the same query if there is one. A look that
// runs meanwhile finds one of the two.
func (t *table) put(e *entry) {
	e.hash = t.hash(&e.query)
	head := &t.heads[e.hash&uint64(len(t.heads)-1)]
	if link, old := seek(head, e.hash, &e.query); old != nil {
		e.next.Store(old.next.Load())
		link.Store(e)
		t.kin.remove(old)
	} else {
		e.next.Store(head.Load())
		head.Store(e)
	}
	t.kin.add(e)
}

func (t *table) remove(q *license.Query) {
	h := t.hash(q)
	if link, old := seek(&t.heads[h&uint64(len(t.heads)-1)], h, q); old != nil {
		link.Store(old.next.Load())
		t.kin.remove(old)
	}
}

// seek finds the entry of q in the list that begins at link, and what leads to it.
func seek(link *atomic.Pointer[entry], hash uint64, q *license.Query) (*atomic.Pointer[entry], *entry) {
	e := link.Load()
	for e != nil && !(e.hash == hash && e.query == *q) {
		link = &e.next
		e = link.Load()
	}
	return link, e
}
