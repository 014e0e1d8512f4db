package ledger

import (
	"os"
	"time"

	"github.com/inprocess/meter/internal/disk"
)

// owedRoutes is the route table of new segments.
func (l *Ledger) owedRoutes() []owed {
	table := make([]owed, len(l.routes))
	for i, r := range l.routes {
		table[i] = owed{r.Name, destinationOf(r.Address)}
	}
	return table
}

// newHead is the head of a new segment.
func (l *Ledger) newHead() head {
	return head{uuid: newUUID(), routes: l.owedRoutes(), instance: l.instance}
}

// prepare makes a segment ready to be counted in: room reserved, pages touched,
// names durable. It is slow and runs behind the requests' backs.
func (l *Ledger) prepare(bytes int64) *segment {
	seg, err := l.prepareFile(bytes)
	if err == nil {
		l.health.clear("room")
		return seg
	}
	l.health.set("room", l.noRoom(err))
	return l.heapSegment(bytes)
}

// heapSegment makes a segment that lives in memory alone.
func (l *Ledger) heapSegment(bytes int64) *segment {
	seg, err := newSegment(l.newHead(), nil, bytes, l.maxQuantity)
	if err != nil {
		panic(err) // heap extents do not fail
	}
	seg.fallback, seg.blocks = l.store != nil, l.mostBlocks
	if seg.fallback && l.refuseWhenFull {
		seg.refusal = ErrFull
	}
	return seg
}

func (l *Ledger) prepareFile(bytes int64) (seg *segment, err error) {
	if l.store == nil {
		return l.heapSegment(bytes), nil
	}
	bytes = max(bytes, firstExtent)
	if l.store.room(bytes) != nil {
		_ = l.store.dropRetained(l.retain, bytes) // a failure shows as the lack of room that it leaves
	}
	if l.store.room(bytes) != nil {
		bytes = firstExtent // it can grow when what is here has been delivered
	}
	if err := l.store.room(bytes); err != nil {
		return nil, err
	}
	h := l.newHead()
	var f *os.File
	if l.store.mapped {
		if f, err = l.store.create(segmentName(h.uuid, 0)); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				f.Close()
				os.Remove(f.Name())
			}
		}()
		if h.identity, err = disk.IdentityOf(f); err != nil {
			return nil, err
		}
		if err = disk.Reserve(f, 0, headSize); err != nil {
			return nil, err
		}
		if err = writePart(f, 0, h.encodeWho()); err != nil {
			return nil, err
		}
	}
	if seg, err = newSegment(h, f, bytes, l.maxQuantity); err != nil {
		return nil, err
	}
	seg.blocks = l.mostBlocks
	if f != nil {
		seg.path, seg.store = f.Name(), l.store
		seg.prefault() // a fault here shows again, where it is handled, when the page is used
		if err = disk.Sync(f); err != nil {
			return nil, err
		}
	}
	if l.syncPolicy != SyncNever {
		if seg.journal, err = newJournal(l, seg); err != nil {
			return nil, err
		}
	}
	if f != nil {
		seg.counted = headSize + seg.reserved
		l.store.used.Add(seg.counted)
	}
	return seg, nil
}

// activate stamps a prepared segment with its window and makes the stamp
// durable, so that the first count in it finds it recoverable.
func (l *Ledger) activate(seg *segment, start int64) error {
	seg.head.start, seg.since = start, time.Now()
	if seg.file != nil {
		err := l.store.steps(
			step{"open head", func() error { return writePart(seg.file, openedAt, seg.head.encodeOpened()) }},
			step{"sync head", func() error { return disk.Sync(seg.file) }},
		)
		if err != nil {
			return err
		}
	}
	return seg.journal.begin()
}

// discard deletes a segment that nobody counted in.
func (l *Ledger) discard(seg *segment) {
	seg.journal.close()
	if seg.file != nil {
		seg.file.Close()
		os.Remove(seg.path)
		l.store.used.Add(-seg.counted)
	}
}

// prepareSpare has the next segment ready before it is needed. The caller holds
// rotating.
func (l *Ledger) prepareSpare() {
	if l.store == nil || l.spare != nil || len(l.unsavedNow()) > 0 {
		return // what waits in memory needs the room more
	}
	spare, err := l.prepareFile(l.extentWanted(l.active.Load()))
	if err == nil {
		l.spare = spare
		l.health.clear("room")
		if l.active.Load().fallback {
			_ = l.rotate(false) // a failure shows in Health
		}
	}
}

// extentWanted sizes the next segment by what the last one took.
func (l *Ledger) extentWanted(last *segment) int64 {
	wanted := min(int64(last.next.Load())*blockSize*5/4, 512<<20)
	if l.store != nil {
		wanted = min(wanted, l.store.max.Load()/8) // it grows if need be; what was counted goes first
	}
	return wanted
}
