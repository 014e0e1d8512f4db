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

// indexTable is an open-addressing table in groups of eight. A byte of each hash
// stands in its group's tags, so that hardly any series is touched but the one that
// is looked for.
type indexTable struct {
	mask   uint64          // of a group's number
	tags   []atomic.Uint64 // of a group: a byte for each of its series, 0 where there is none
	series []atomic.Pointer[Series]
}

const (
	groupSize = 8
	lowBits   = 0x0101010101010101
	highBits  = 0x8080808080808080
)

// zeros marks, by its highest bit, the first byte that is 0, and maybe some behind it.
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
	for group := hash & t.mask; ; group = (group + 1) & t.mask {
		tags := t.tags[group].Load()
		for same := zeros(tags ^ tag); same != 0; same &= same - 1 {
			s := t.series[group*groupSize+uint64(bits.TrailingZeros64(same)/8)].Load()
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
	if t == nil || (sh.n+1)*8 > len(t.series)*7 {
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
		tags:   make([]atomic.Uint64, groups),
		series: make([]atomic.Pointer[Series], groups*groupSize),
	}
	for _, s := range kept {
		t.put(x.hash(s.name()), s)
	}
	sh.n = len(kept)
	sh.table.Store(t)
	return t
}

func (t *indexTable) put(hash uint64, s *Series) {
	for group := hash & t.mask; ; group = (group + 1) & t.mask {
		tags := t.tags[group].Load()
		if free := zeros(tags); free != 0 {
			at := bits.TrailingZeros64(free) / 8
			t.series[group*groupSize+uint64(at)].Store(s) // before its tag: who sees that finds it
			t.tags[group].Store(tags | tagOf(hash)<<(at*8))
			return
		}
	}
}

func (sh *indexShard) each(visit func(*Series)) {
	t := sh.table.Load()
	if t == nil {
		return
	}
	for i := range t.series {
		if s := t.series[i].Load(); s != nil {
			visit(s)
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
