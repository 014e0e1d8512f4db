package ledger

import (
	"hash/maphash"
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

type indexTable struct {
	mask    uint64
	entries []indexEntry
}

type indexEntry struct {
	hash   uint64 // written before series
	series atomic.Pointer[Series]
}

func newIndex() *index { return &index{seed: maphash.MakeSeed()} }

func (x *index) hash(name string) uint64 { return maphash.String(x.seed, name) }

func (x *index) shard(hash uint64) *indexShard { return &x.shards[hash>>59] }

// find returns the series of this name, or nil.
func (x *index) find(name string) *Series {
	hash := maphash.String(x.seed, name)
	t := x.shards[hash>>59].table.Load()
	if t == nil {
		return nil
	}
	for i := hash & t.mask; ; i = (i + 1) & t.mask {
		s := t.entries[i].series.Load()
		if s == nil {
			return nil
		}
		if t.entries[i].hash == hash && s.name() == name {
			return s
		}
	}
}

// findOrAdd returns the series of this name, made by create if there is none.
func (x *index) findOrAdd(name string, create func() *Series) *Series {
	if s := x.find(name); s != nil {
		return s
	}
	hash := x.hash(name)
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := x.find(name); s != nil {
		return s
	}
	s := create()
	sh.insert(hash, s)
	return s
}

// insert adds a series that is not in the table. The caller holds the lock.
func (sh *indexShard) insert(hash uint64, s *Series) {
	t := sh.table.Load()
	if t == nil || sh.n*3 >= len(t.entries)*2 {
		t = sh.rebuild(func(*Series) bool { return true })
	}
	t.put(hash, s)
	sh.n++
}

// rebuild replaces the table by one with room to grow that holds what keep
// keeps. The caller holds the lock.
func (sh *indexShard) rebuild(keep func(*Series) bool) *indexTable {
	old := sh.table.Load()
	sh.n = 0
	if old != nil {
		for i := range old.entries {
			if s := old.entries[i].series.Load(); s != nil && keep(s) {
				sh.n++
			}
		}
	}
	size := 8
	for size < sh.n*2 {
		size *= 2
	}
	t := &indexTable{mask: uint64(size - 1), entries: make([]indexEntry, size)}
	if old != nil {
		for i := range old.entries {
			if s := old.entries[i].series.Load(); s != nil && keep(s) {
				t.put(old.entries[i].hash, s)
			}
		}
	}
	sh.table.Store(t)
	return t
}

func (t *indexTable) put(hash uint64, s *Series) {
	i := hash & t.mask
	for t.entries[i].series.Load() != nil {
		i = (i + 1) & t.mask
	}
	t.entries[i].hash = hash
	t.entries[i].series.Store(s)
}

// each calls visit for every series. The caller holds no lock.
func (x *index) each(visit func(*Series)) {
	for i := range x.shards {
		if t := x.shards[i].table.Load(); t != nil {
			for j := range t.entries {
				if s := t.entries[j].series.Load(); s != nil {
					visit(s)
				}
			}
		}
	}
}

// barrier returns once every registration that was under way is over.
func (x *index) barrier() {
	for i := range x.shards {
		x.shards[i].mu.Lock()
		x.shards[i].mu.Unlock() //nolint:staticcheck // the wait is the point
	}
}
