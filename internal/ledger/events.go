package ledger

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	eventShards      = 64
	eventGenerations = 4 // that a window's IDs are in: a fourth of it longer than need be they are remembered
	usualEventWindow = 24 * time.Hour
)

// events are the IDs of the events that are remembered, with a sum of what each was
// counted for. They are what the segments say, in memory; nothing else is stored.
type events struct {
	window int64 // seconds
	span   int64 // of a generation
	seed   maphash.Seed
	shards [eventShards]eventShard
}

type eventShard struct {
	mu          sync.Mutex
	generations []generation              // oldest first
	flights     map[eventID]chan struct{} // that are being counted; closed when that has ended
	unsynced    map[eventID]*atomic.Bool  // not known to be as safe as the policy says; true: saved by now
	_           [64]byte
}

// generation holds the IDs that were counted in one span of time.
type generation struct {
	number int64
	seen   map[eventID]uint64
}

// anySum is what an event was counted for of which that is not known any more.
const anySum = 0

func newEvents(window time.Duration) *events {
	if window <= 0 {
		window = usualEventWindow
	}
	seconds := max(1, int64((window+time.Second-1)/time.Second))
	e := &events{window: seconds, span: max(1, seconds/eventGenerations), seed: maphash.MakeSeed()}
	for i := range e.shards {
		e.shards[i].flights, e.shards[i].unsynced = make(map[eventID]chan struct{}), make(map[eventID]*atomic.Bool)
	}
	return e
}

// sumOf tells what an event is counted for: who is billed, and how much.
func (e *events) sumOf(subject string, n int64) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
	h.WriteString(subject)
	return max(h.Sum64(), anySum+1)
}

func (e *events) shard(id eventID) *eventShard { return &e.shards[id[0]%eventShards] }

// once has count count the event, unless it is remembered; again says that it was.
// count remembers it, and returns what tells that it is safe at last. Who comes while
// it is being counted waits: only if that fails it is tried anew. safe is asked about
// an event that was counted and then was not safe.
func (e *events) once(id eventID, sum uint64, count func() (saved *atomic.Bool, err error), safe func(saved *atomic.Bool) error) (again bool, err error) {
	sh := e.shard(id)
	for {
		sh.mu.Lock()
		if flight := sh.flights[id]; flight != nil {
			sh.mu.Unlock()
			<-flight
			continue
		}
		before, ok := sh.find(id)
		if !ok {
			break
		}
		saved := sh.unsynced[id]
		sh.mu.Unlock()
		switch {
		case before != anySum && before != sum:
			return false, ErrConflict
		case saved == nil:
			return true, nil
		}
		if err := safe(saved); err != nil {
			return true, err
		}
		sh.mu.Lock()
		_, ok = sh.find(id) // else it was lost meanwhile
		if ok {
			delete(sh.unsynced, id)
		}
		sh.mu.Unlock()
		if ok {
			return true, nil
		}
	}
	flight := make(chan struct{})
	sh.flights[id] = flight
	sh.mu.Unlock()
	var saved *atomic.Bool
	defer func() {
		sh.mu.Lock()
		delete(sh.flights, id)
		if saved != nil && err != nil {
			sh.unsynced[id] = saved
		} else {
			delete(sh.unsynced, id)
		}
		sh.mu.Unlock()
		close(flight)
	}()
	saved, err = count()
	return false, err
}

// find returns the sum of an ID that is remembered. The caller holds mu.
func (sh *eventShard) find(id eventID) (sum uint64, ok bool) {
	for i := len(sh.generations) - 1; i >= 0; i-- {
		if sum, ok = sh.generations[i].seen[id]; ok {
			return sum, true
		}
	}
	return 0, false
}

func (e *events) remembers(id eventID) bool {
	sh := e.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, ok := sh.find(id)
	return ok
}

// remember adds an ID that was counted at a second, and forgets those that are too
// old. The caller holds mu.
func (sh *eventShard) remember(e *events, id eventID, sum uint64, at int64) {
	number := at / e.span
	i := slices.IndexFunc(sh.generations, func(g generation) bool { return g.number == number })
	if i < 0 {
		sh.forget(e, time.Now().Unix())
		i, _ = slices.BinarySearchFunc(sh.generations, number, func(g generation, n int64) int { return cmp.Compare(g.number, n) })
		sh.generations = slices.Insert(sh.generations, i, generation{number, make(map[eventID]uint64)})
	}
	seen := sh.generations[i].seen
	if before, ok := seen[id]; ok && before != sum {
		sum = anySum // counted, forgotten, counted again; recovery can't tell which was last
	}
	seen[id] = sum
}

// forget drops the generations of which every ID is older than the window. The
// caller holds mu.
func (sh *eventShard) forget(e *events, now int64) {
	sh.generations = slices.DeleteFunc(sh.generations, func(g generation) bool { return (g.number+1)*e.span+e.window <= now })
	maps.DeleteFunc(sh.unsynced, func(id eventID, saved *atomic.Bool) bool {
		_, ok := sh.find(id)
		return !ok || saved.Load()
	})
}

// remember adds an ID that was just counted.
func (e *events) remember(id eventID, sum uint64) {
	sh := e.shard(id)
	sh.mu.Lock()
	sh.remember(e, id, sum, time.Now().Unix())
	sh.mu.Unlock()
}

// drop forgets events whose counts are lost.
func (e *events) drop(ids []eventID) {
	for _, id := range ids {
		sh := e.shard(id)
		sh.mu.Lock()
		for _, g := range sh.generations {
			delete(g.seen, id)
		}
		sh.mu.Unlock()
	}
}

func (e *events) forget(now int64) {
	for i := range e.shards {
		sh := &e.shards[i]
		sh.mu.Lock()
		sh.forget(e, now)
		sh.mu.Unlock()
	}
}

// counted is the second by which everything in the segment was counted.
func (sd *sealed) counted() int64 { return max(sd.head.end, sd.head.last) }

// remembers reports whether the segment is needed for the IDs of its events: as long as
// the youngest generation that may hold them. The caller holds mu.
func (sd *sealed) remembers(now time.Time) bool {
	e := sd.ledger.events
	return sd.events > 0 && sd.ledger.store != nil && now.Unix() < sd.counted()+e.window+e.span
}

// learn adds the events of a recovered segment. The caller holds sd.mu, or is the
// only one who knows sd.
func (e *events) learn(sd *sealed) {
	if sd.events == 0 || sd.counted()+e.window+e.span <= time.Now().Unix() {
		return
	}
	subjects := make(map[uint32]string)
	for _, block := range sd.img.slots {
		if _, subject, _, err := decodeKey(sd.img.key(block)); err == nil {
			subjects[block] = subject
		}
	}
	scan(sd.img.blocks, sd.head.uuid, true, func(s slot) {
		subject, ok := subjects[s.primary]
		if !ok || !s.shape.event() {
			return // without its series' slot it is not counted
		}
		sum := uint64(anySum) // a count that can't be read was perhaps billed before
		if !s.badWord {
			if s.word&wordSet == 0 {
				return
			}
			sum = e.sumOf(subject, int64(s.word&wordCount))
		}
		id := eventID(s.key)
		sh := e.shard(id)
		sh.mu.Lock()
		sh.remember(e, id, sum, sd.counted())
		sh.mu.Unlock()
	}, func(_, _ uint32) {})
}

var errWaits = fmt.Errorf("%w: it waits in memory to be written to disk", ErrUnsynced)
