package ledger

import (
	"context"
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
	events := r.events.Load()
	if r.whole || own > seg.limit { // whoever may add to the word holds that lock, too
		return seg.most - own - events
	}
	return seg.eventShare() - events
}

// eventID reads the ID of a cell that is an event's; not ok if the memory is gone,
// or is not what it was.
func (seg *segment) eventID(c *cell) (id eventID, ok bool) {
	if !c.event() {
		return id, true
	}
	res := seg.guard(func() result {
		b := seg.bytes(c.block)
		copy(id[:], b[slotEvent:])
		ok = order.Uint32(b[slotSum:]) == shapeSum(seg.head.uuid, c.block, eventShape, c.of(), id[:])
		return counted
	})
	return id, ok && res == counted
}

// AddEvent counts n of the feature (a Sum) for subject, as used at a time (zero: now; see
// SeriesAt), unless an event with this ID was counted before in the feature and scope, while it is remembered. It is
// ErrConflict if that one had another quantity or subject. 0 does nothing, and is
// not remembered; neither is what is refused. An error means not counted, except
// ErrUnsynced.
func (f *Feature) AddEvent(subject string, dimensions map[string]string, at time.Time, scope, id string, n int64) error {
	if err := checkName("event ID", id, MaxEventID); err != nil {
		return err
	}
	s, err := f.Series(subject, dimensions)
	if err != nil {
		return err
	}
	if err := s.checkSum(n); err != nil {
		return err
	}
	if f.ledger.closed.Load() {
		return ErrClosed
	}
	if n == 0 {
		return nil
	}
	known := newEventID(f.name, scope, id)
	again, err := f.ledger.events.once(known, f.ledger.events.sumOf(subject, n), func() (*segment, error) {
		dated, err := f.SeriesAt(subject, dimensions, at)
		if err != nil {
			return nil, err
		}
		s = dated
		return s.addEvent(known, uint64(n))
	}, f.ledger.safe)
	if again {
		f.duplicates.Add(1)
	} else if s.is(tallied) {
		s.missed()
	}
	return err
}

// Duplicates is how many events were seen again since Open.
func (f *Feature) Duplicates() int64 { return f.duplicates.Load() }

// addEvent counts n under an ID, and returns where.
func (s *Series) addEvent(id eventID, n uint64) (*segment, error) {
	l := s.feature.ledger
	for {
		seg, cell, res, err := s.tryEvent(id, n)
		if err != nil {
			return nil, err
		}
		switch res {
		case counted:
			return seg, l.commit(seg, cell)
		case faulted:
			l.poison(seg)
		case overflow:
			if n > seg.eventShare() {
				s.undivide()
			}
			if err := l.Rotate(context.Background()); err != nil {
				return nil, err
			}
		}
	}
}

// tryEvent gives the event its slot. It holds the lock of the series' shard, and
// sealing waits for that before it looks at the slots: what is counted here is
// sealed.
func (s *Series) tryEvent(id eventID, n uint64) (seg *segment, cell uint32, res result, err error) {
	x := s.index()
	sh := x.shard(x.hash(s.name()))
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p, err := s.registerIn(x)
	if err != nil {
		return nil, 0, faulted, err
	}
	seg = p.seg
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
	if n > seg.left(r, own&wordCount) {
		return seg, 0, overflow, nil
	}
	cell, c, err := seg.addSlot(primary.series, eventShape, primary.block, id[:])
	switch {
	case errors.Is(err, errPoisoned):
		return seg, 0, faulted, nil
	case err != nil:
		s.feature.ledger.overflowed(seg, err)
		return seg, 0, retired, nil
	}
	// From here on the slot is found, and holds nothing. This store is the event.
	res = seg.guard(func() result {
		seg.word(c.block).Store(n | wordSet)
		return counted
	})
	if res == counted {
		r.events.Add(n)
	}
	return seg, cell, res, nil
}

// safe makes an event as safe as the policy says that was counted in seg and then
// was not.
func (l *Ledger) safe(seg *segment) error {
	if l.active.Load() == seg {
		if seg.fallback {
			return errWaits
		}
		return seg.journal.sync()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, waiting := range l.retired {
		if waiting == seg {
			return errWaits
		}
	}
	for _, u := range l.unsaved {
		if u.seg == seg {
			return errWaits
		}
	}
	return nil
}
