package ledger

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

const indexShards = 32

// index finds a series by name. Finding takes no lock; adding takes one shard's,
// under which the series is also given its slot, so that sealing can wait for
// every registration that is under way.
type index struct {
	seed   maphash.Seed
	shards [indexShards]indexShard
}

type indexShard struct {
	mu    sync.Mutex
	n     int
	table atomic.Pointer[indexTable]
	_     [64]byte // shards side by side would share cache lines
}

// indexTable is an open-addressing table of groups.
type indexTable struct {
	mask   uint64 // of a group's number
	groups []indexGroup
}

// indexGroup is one cache line: seven series, and a byte of each one's hash, so that
// hardly any series is touched but the one that is looked for.
type indexGroup struct {
	tags   atomic.Uint64 // a byte for each series, from the lowest on, 0 where there is none; the highest byte is 0
	series [groupSize]atomic.Pointer[Series]
}

const (
	groupSize = 7
	lowBits   = 0x0001010101010101 // of each tag
	highBits  = 0x0080808080808080
)

// zeros marks, by its highest bit, the first tag that is 0, and maybe some behind it.
func zeros(x uint64) uint64 { return (x - lowBits) &^ x & highBits }

func tagOf(hash uint64) uint64 { return max(hash>>48&0xff, 1) }

func newIndex() *index { return &index{seed: maphash.MakeSeed()} }

func (x *index) hash(name string) uint64 { return maphash.String(x.seed, name) }

func (x *index) shard(hash uint64) *indexShard { return &x.shards[hash>>59] }

// find returns the series of this name, or nil.
func (x *index) find(name string) *Series {
	hash := x.hash(name)
	t := x.shards[hash>>59].table.Load()
	if t == nil {
		return nil
	}
	tag := tagOf(hash) * lowBits
	for at := hash; ; at++ {
		group := &t.groups[at&t.mask]
		tags := group.tags.Load()
		for same := zeros(tags ^ tag); same != 0; same &= same - 1 {
			s := group.series[bits.TrailingZeros64(same)/8].Load()
			if s != nil && s.name() == name {
				return s
			}
		}
		if zeros(tags) != 0 {
			return nil
		}
	}
}

// findOrAdd returns the series of this name, made by create if there is none.
func (x *index) findOrAdd(name string, create func() *Series) *Series {
	if s := x.find(name); s != nil {
		return s
	}
	sh := x.shard(x.hash(name))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := x.find(name); s != nil {
		return s
	}
	s := create()
	x.insert(s)
	return s
}

// insert adds a series that is not in the table. The caller holds its shard's lock.
func (x *index) insert(s *Series) {
	hash := x.hash(s.name())
	sh := x.shard(hash)
	t := sh.table.Load()
	if t == nil || (sh.n+1)*8 > len(t.groups)*groupSize*7 {
		t = x.rebuild(sh, func(*Series) bool { return true })
	}
	t.put(hash, s)
	sh.n++
}

// rebuild replaces the shard's table by one with room to grow that holds what keep
// keeps. The caller holds the shard's lock.
func (x *index) rebuild(sh *indexShard, keep func(*Series) bool) *indexTable {
	var kept []*Series
	sh.each(func(s *Series) {
		if keep(s) {
			kept = append(kept, s)
		}
	})
	groups := 1
	for groups*groupSize*7 < (len(kept)+1)*8 {
		groups *= 2
	}
	t := &indexTable{
		mask:   uint64(groups - 1),
		groups: make([]indexGroup, groups),
	}
	for _, s := range kept {
		t.put(x.hash(s.name()), s)
	}
	sh.n = len(kept)
	sh.table.Store(t)
	return t
}

func (t *indexTable) put(hash uint64, s *Series) {
	for at := hash; ; at++ {
		group := &t.groups[at&t.mask]
		tags := group.tags.Load()
		if free := zeros(tags); free != 0 {
			at := bits.TrailingZeros64(free) / 8
			group.series[at].Store(s) // before its tag: who sees that finds it
			group.tags.Store(tags | tagOf(hash)<<(at*8))
			return
		}
	}
}

func (sh *indexShard) each(visit func(*Series)) {
	t := sh.table.Load()
	if t == nil {
		return
	}
	for i := range t.groups {
		for at := range t.groups[i].series {
			if s := t.groups[i].series[at].Load(); s != nil {
				visit(s)
			}
		}
	}
}

// each calls visit for every series. The caller holds no lock.
func (x *index) each(visit func(*Series)) {
	for i := range x.shards {
		x.shards[i].each(visit)
	}
}

// barrier returns once every registration that was under way is over.
func (x *index) barrier() {
	for i := range x.shards {
		x.shards[i].mu.Lock()
		x.shards[i].mu.Unlock() //nolint:staticcheck // the wait is the point
	}
}
