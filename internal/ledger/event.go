package ledger

import (
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/sink"
)

// An event is counted in a slot of its own, a stripe of its series' slot that has
// the event's ID for a key. The word of that slot is the count and the memory of
// the event at once: one store makes both true, so that no death, and no power cut,
// can leave one without the other. All that keeps counts keeps IDs: the journal,
// sealing, recovery, adoption, a copy. A sealed segment stays until its events are
// as old as the window in which they are remembered, however long it is settled.

// MaxEventID is the most bytes of an event's ID.
const MaxEventID = 256

// eventID is what is kept of an ID: 128 bits of its SHA-256, with its feature and
// scope. That two of a billion differ and are taken for one has a probability below
// 1e-20; to make two that are takes some 2^64 attempts.
type eventID [16]byte

var eventShape = newShape(len(eventID{}), sink.Sum, flagStripe|flagEvent)

func newEventID(feature, scope, id string) eventID {
	var buf [512]byte
	b := appendText(appendText(appendText(buf[:0], feature), scope), id)
	sum := sha256.Sum256(b)
	return eventID(sum[:])
}

// room is what a segment knows of a series that counts events there.
type room struct {
	events atomic.Uint64 // their sum; written with the lock of the series' shard held
	whole  bool          // the series was undivided when it was registered
}

// room is nil for a series without events.
func (seg *segment) room(block uint32) *room {
	r, _ := seg.rooms.Load(block)
	found, _ := r.(*room)
	return found
}

// eventShare is what the events of a series may come to in one window, whatever
// else it counts.
func (seg *segment) eventShare() uint64 { return seg.most - seg.limit - maxStripes*seg.stripeLimit() }

// left is what events of a series may still add to one record, beside what its own
// word holds or others may add to that at any moment. The caller holds the lock of
// the series' shard.
func (seg *segment) left(r *room, own uint64) uint64 {
	all, taken := seg.eventShare(), r.events.Load()
	if r.whole || own > seg.limit { // whoever may add to the word holds that lock, too
		all, taken = seg.most, own+taken
	}
	if taken > all { // own was more before a cut through it
		return 0
	}
	return all - taken
}

// eventID is the ID of the event in cell number i, from the heap: it must be known,
// too, when the memory is gone. Zero: nothing was counted there.
func (seg *segment) eventID(i int) eventID {
	return (*seg.chunks.Load())[i/chunkCells].ids.Load()[i%chunkCells]
}

// forsake makes a cell nobody's that an event was to have and could not be stored in.
func (seg *segment) forsake(i uint32) {
	(*seg.chunks.Load())[i/chunkCells].ids.Load()[i%chunkCells] = eventID{}
}

// AddEvent counts n of the feature (a Sum) for subject, as used at a time (zero: now;
// see SeriesAt), unless an event with this ID was counted before in the feature and
// scope, while it is remembered. It is ErrConflict if that one had another quantity or
// subject. 0 does nothing, and is not remembered; neither is what is refused. An error
// means not counted, except ErrUnsynced.
func (f *Feature) AddEvent(subject string, dimensions map[string]string, at time.Time, scope, id string, n int64) error {
	return f.addEvent(subject, dimensions, scope, id, event{at: at, n: n})
}

// AddEventHeld is AddEvent, of now, for a call that t let through, and that ends with it.
// In the moment in which it counts, or else before it returns, it gives back held.
func (f *Feature) AddEventHeld(subject string, dimensions map[string]string, scope, id string, n int64, t *Tally, held int64) error {
	h := &hold{t, held}
	err := f.addEvent(subject, dimensions, scope, id, event{n: n, hold: h})
	if h.tally != nil {
		t.Release(held)
	}
	return err
}

// hold is what a call holds that ends with an event. It has no tally once that is given
// back; nil: there is none.
type hold struct {
	tally *Tally
	n     int64
}

// event is one that is to be counted.
type event struct {
	id   eventID
	at   time.Time // when it was; zero: now
	n    int64
	sum  uint64 // tells it from another one with its ID
	hold *hold  // nil: none
}

func (f *Feature) addEvent(subject string, dimensions map[string]string, scope, id string, ev event) error {
	if err := checkName("event ID", id, MaxEventID); err != nil {
		return err
	}
	if _, err := f.Series(subject, dimensions); err != nil {
		return err
	}
	if err := f.checkSum(ev.n); err != nil {
		return err
	}
	if f.ledger.closed.Load() {
		return ErrClosed
	}
	if ev.n == 0 {
		return nil
	}
	e := f.ledger.events
	ev.id, ev.sum = newEventID(f.name, scope, id), e.sumOf(subject, ev.n)
	again, err := e.once(ev.id, ev.sum, func() (*atomic.Bool, error) {
		for {
			s, err := f.SeriesAt(subject, dimensions, ev.at)
			if err != nil {
				return nil, err
			}
			if saved, err := s.addEvent(&ev); !errors.Is(err, errPassed) {
				return saved, err
			}
		}
	}, f.ledger.safe)
	if again {
		f.duplicates.Add(1)
	}
	return err
}

// Remembers reports whether an event with this ID was counted in the feature and scope,
// and is remembered.
func (f *Feature) Remembers(scope, id string) bool {
	return f.ledger.events.remembers(newEventID(f.name, scope, id))
}

// Duplicates is how many events were seen again since Open.
func (f *Feature) Duplicates() int64 { return f.duplicates.Load() }

// addEvent counts an event, and returns what tells that it is safe at last.
func (s *Series) addEvent(ev *event) (saved *atomic.Bool, err error) {
	l := s.feature.ledger
	for {
		t := s.tally()
		if ev.hold != nil {
			t = ev.hold.tally
		}
		seg, cell, res, err := t.addEvent(s, ev)
		if err != nil {
			return nil, err
		}
		switch res {
		case counted:
			if t == nil || t.isGone() {
				s.missed(seg, ev.n)
			}
			if seg.fallback { // whatever the policy: the ID must outlive what it is billed with
				return seg.saved, errWaits
			}
			return seg.saved, l.commit(seg, cell)
		case faulted:
			l.poison(seg)
		case passed:
			return nil, errPassed
		case overflow:
			if uint64(ev.n) > seg.eventShare() {
				s.undivide()
			}
			if err := l.endWindow(); err != nil {
				return nil, err
			}
		}
	}
}

// addEvent counts an event through t, nil for none, in one moment.
func (t *Tally) addEvent(s *Series, ev *event) (seg *segment, cell uint32, res result, err error) {
	if t == nil {
		return s.tryEvent(ev)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if seg, cell, res, err = s.tryEvent(ev); res == counted {
		if h := ev.hold; h != nil {
			t.give(h.n, true)
			h.tally = nil
		}
		t.count(s.when(seg), ev.n)
	}
	return seg, cell, res, err
}

func (t *Tally) isGone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.gone
}

// tryEvent gives the event its slot, and remembers it. It holds the lock of the
// series' shard, and sealing waits for that before it looks at the slots: what is
// counted here is sealed, and what sealing finds lost was remembered before.
func (s *Series) tryEvent(ev *event) (seg *segment, cell uint32, res result, err error) {
	x, l := s.index(), s.feature.ledger
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p, err := s.registerIn(x)
	if errors.Is(err, errLarge) {
		return l.active.Load(), 0, overflow, nil
	}
	if err != nil {
		return nil, 0, faulted, err
	}
	seg = p.seg
	if !s.is(backdated) && seg.begins(ev.at) {
		return seg, 0, passed, nil
	}
	primary := seg.cell(p.cell)
	r := seg.room(primary.block)
	if r == nil {
		r = &room{}
		seg.rooms.Store(primary.block, r)
	}
	own, ok := seg.load(primary)
	if !ok {
		return seg, 0, faulted, nil
	}
	n := uint64(ev.n)
	if n > seg.left(r, own&wordCount) {
		return seg, 0, overflow, nil
	}
	key := ev.id // or else every event would be on the heap, also those seen again
	cell, c, err := seg.addSlot(primary.series, eventShape, primary.block, key[:])
	switch {
	case errors.Is(err, errPoisoned):
		return seg, 0, faulted, nil
	case errors.Is(err, errLarge):
		return seg, 0, overflow, nil
	case err != nil:
		l.overflowed(seg, err)
		return seg, 0, retired, nil
	}
	// From here on the slot is found, and holds nothing. This store is the event.
	res = seg.guard(func() result {
		seg.word(c.block).Store(n | wordSet)
		return counted
	})
	if res == counted {
		r.events.Add(n)
		l.events.remember(ev.id, ev.sum)
	} else {
		seg.forsake(cell)
	}
	return seg, cell, res, nil
}

// safe makes an event as safe as the policy says that was counted and then was not.
// What is saved is on disk, or was lost and is forgotten.
func (l *Ledger) safe(saved *atomic.Bool) error {
	if saved.Load() {
		return nil
	}
	if seg := l.active.Load(); seg.saved == saved && !seg.fallback {
		return seg.journal.sync()
	}
	return errWaits
}
