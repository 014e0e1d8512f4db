package ledger

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// seal makes a retired segment's counts final and durable. It returns nil for a
// segment in which nothing was counted.
func (l *Ledger) seal(seg *segment) *sealed {
	if seg.empty() {
		l.discard(seg)
		return nil
	}
	words := make([]uint64, seg.used.Load())
	lost := seg.sealEvents(words)
	l.sealWords(seg, words)
	blocks, err := seg.image()
	if err != nil || seg.cut() || seg.poisoned.Load() {
		seg.poisoned.Store(true)
		l.mend(seg, words)
		blocks = seg.rebuild(words)
	}
	if len(lost) > 0 {
		l.events.drop(lost)
		l.health.set("events "+seg.head.uuid.String(), fmt.Errorf("meter: %s with %s is gone (file cut short, or the disk failed): they are forgotten, and count again if they come again", filepath.Base(seg.path), count(len(lost), "event", "events")))
	}
	h := seg.head
	h.end = max(l.nextStartHint(), h.start+1)
	h.blocks = uint32(len(blocks) / blockSize)
	h.jumped = l.jumped.Swap(false)

	sd := newSealed(l, h, "")
	sd.paused = seg.journal != nil || seg.file != nil
	sealBlocks(blocks, h.uuid)
	img, d := newImage(blocks, h.uuid, true)
	if d.any() {
		l.reportDamage(seg.path, d)
	}
	sd.img, sd.head.slots, sd.head.dated = img, img.intact, img.dated
	for _, block := range img.slots {
		sd.decideRoutes(block)
	}
	sd.recount()
	// An event that is billed from memory would be billed again: nobody knew its ID.
	sd.paused = sd.paused || l.store != nil && sd.events > 0
	if l.store != nil {
		l.queue(unsaved{sd, seg}, l.save(sd, seg))
	}
	return sd
}

// nextStartHint is where the window being sealed ends: where the active one
// begins, or now.
func (l *Ledger) nextStartHint() int64 {
	if seg := l.active.Load(); seg != nil && !l.closed.Load() {
		return seg.head.start
	}
	return l.tick()
}

// final seals a cell's word, and is the last that is known of one that is gone.
func (seg *segment) final(c *cell) uint64 {
	word, ok := seg.seal(c)
	if !ok {
		seg.poisoned.Store(true)
		word = seg.journal.lastWord(c)
	}
	return word
}

// sealEvents seals the words of events, which nobody looks at while the segment is
// in use, and returns the events that are lost: their memory is gone, and the journal
// does not have them. Those of each series come to what is left.
func (seg *segment) sealEvents(words []uint64) (lost []eventID) {
	seg.each(func(i int, c *cell) {
		if !c.event() {
			return
		}
		words[i] = seg.final(c)
		if words[i]&wordSet == 0 { // as in what is left of a page that was cut
			words[i] = seg.journal.lastWord(c)
		}
		if id := seg.eventID(i); words[i]&wordSet == 0 && id != (eventID{}) {
			lost = append(lost, id)
		}
	})
	if len(lost) == 0 {
		return nil
	}
	seg.poisoned.Store(true)
	left := make(map[uint32]uint64)
	seg.each(func(i int, c *cell) {
		if c.event() {
			left[c.of()] += words[i] & wordCount
		}
	})
	for block, n := range left {
		seg.room(block).events.Store(n)
	}
	return lost
}

// sealWords seals every other slot's word and notes it in the running month, with
// the series' events. The totals' lock makes both one step for whoever reads a total.
func (l *Ledger) sealWords(seg *segment, words []uint64) {
	l.totalsMu.Lock()
	defer l.totalsMu.Unlock()
	seg.each(func(i int, c *cell) {
		if i%256 == 255 {
			l.totalsMu.Unlock()
			l.totalsMu.Lock()
		}
		if c.event() {
			return // noted with its primary, as stripes are
		}
		words[i] = seg.final(c)
		if c.stripe() {
			return
		}
		set, quantity := words[i]&wordSet != 0, words[i]&wordCount
		if sp := seg.spread(c.block); sp != nil {
			for _, stripe := range sp.stripes {
				word := seg.final(stripe)
				set, quantity = set || word&wordSet != 0, quantity+word&wordCount
			}
			if quantity < coldSpread {
				c.series.unmark(hot) // a few collisions in a window are not worth the slots
			}
		}
		if r := seg.room(c.block); r != nil {
			events := r.events.Load() // no more of them come
			set, quantity = set || events > 0, quantity+events
		}
		if set {
			l.note(c.series, monthOf(c.series.when(seg).used), seg.head.start+1, int64(quantity))
		}
		c.series.leave(seg)
		seg.behind.Delete(c.series)
	})
}

// cut reports whether somebody truncated the file under the map.
func (seg *segment) cut() bool {
	if seg.file == nil {
		return false
	}
	// Before the size: the file grows before blocks of it are taken, also meanwhile.
	taken := headSize + int64(seg.next.Load())*blockSize
	info, err := seg.file.Stat()
	return err == nil && info.Size() < taken
}

// mend brings the words back that lie behind a cut in its last page: they read as
// zeros there and began to count anew, which the journal knows nothing of. So do those
// behind a cut that was filled up again.
func (l *Ledger) mend(seg *segment, words []uint64) {
	if seg.file == nil {
		return
	}
	info, err := seg.file.Stat()
	if err != nil {
		return
	}
	seg.each(func(i int, c *cell) {
		if c.event() || words[i]&wordSealed == 0 {
			return // read as the journal has it
		}
		known := seg.journal.lastWord(c)
		if behind := headSize+int64(c.block)*blockSize+slotSeal > info.Size(); known&wordSet == 0 || !behind && !c.fellFrom(known, words[i]) {
			return
		}
		kind, more := c.series.feature.kind, int64(known&wordCount)
		if since := int64(words[i] & wordCount); words[i]&wordSet != 0 {
			switch kind {
			case sink.Last:
				return
			case sink.Sum:
				more = min(more, MaxQuantity-since)
			}
			words[i] = uint64(combine(kind, since, more)) | wordSet
		} else {
			words[i] = known
		}
		l.totalsMu.Lock()
		l.note(c.series, monthOf(c.series.when(seg).used), seg.head.start+1, more)
		l.totalsMu.Unlock()
	})
}

// rebuild writes the blocks anew from what is on the heap.
func (seg *segment) rebuild(words []uint64) []byte {
	blocks := make([]byte, int(seg.next.Load())*blockSize)
	seg.each(func(i int, c *cell) {
		var key []byte
		sh := newShape(0, sink.Sum, flagStripe)
		switch {
		case !c.stripe():
			key = c.series.appendKey(nil)
			sh = newShape(len(key), c.series.feature.kind, 0)
		case c.event() && words[i]&wordSet == 0:
			return // forgotten
		case c.event():
			id := seg.eventID(i)
			sh, key = eventShape, id[:]
		}
		at := blocks[c.block*blockSize:]
		putSlot(at, seg.head.uuid, c.block, sh, c.of(), key)
		order.PutUint64(at[slotWord:], words[i])
	})
	return blocks
}

// sealBlocks seals every intact slot in a copy of a segment's blocks.
func sealBlocks(blocks []byte, u uuid) {
	scan(blocks, u, false, func(s slot) {
		b := blocks[int(s.block)*blockSize:]
		if !s.shape.stripe() {
			clear(b[slotOutcome:blockSize])
		}
		if !s.badWord {
			sealSlot(b, u, s.word)
		}
	}, func(_, _ uint32) {})
}

// save brings a sealed segment to disk: into the file it was counted in, or into
// a new one. Until that works it waits in memory, and nothing of it is sent if a
// crash could bring it back as never sent.
// The caller holds sd.mu, or is the only one who knows sd.
func (l *Ledger) save(sd *sealed, seg *segment) error {
	if sd.folded {
		return nil // its totals speak for it
	}
	var err error
	if seg.file != nil && !seg.poisoned.Load() {
		if err = l.saveInPlace(sd, seg); err == nil {
			sd.path = seg.path
		}
	}
	if sd.path == "" {
		h := sd.head
		if seg.file != nil {
			h.generation++
		}
		var path string
		path, err = l.store.writeSegment(&h, sd.img.blocks)
		if errors.Is(err, ErrFull) && l.spare != nil {
			l.discard(l.spare) // counts go before comfort
			l.spare = nil
			path, err = l.store.writeSegment(&h, sd.img.blocks)
		}
		if err == nil {
			sd.head.generation, sd.head.identity = h.generation, h.identity
			sd.path = path
			if seg.path != "" && l.setAside(seg.path, fmt.Errorf("its memory faulted or its file could not be written")) {
				l.store.remove(seg.path)
			}
		}
	}
	if err != nil {
		return err
	}
	if seg.file != nil {
		seg.file.Close()
	}
	seg.journal.close()
	sd.paused = false
	seg.saved.Store(true)
	return nil
}

// queue remembers a segment whose saving failed with err.
func (l *Ledger) queue(u unsaved, err error) {
	if err == nil {
		return
	}
	l.health.set("seal", fmt.Errorf("meter: sealed counts can't be written and wait in memory: %w", err))
	l.mu.Lock()
	l.unsaved = append(l.unsaved, u)
	l.mu.Unlock()
}

// unsaved is a sealed segment that could not be written yet.
type unsaved struct {
	sd  *sealed
	seg *segment
}

// saveAgain retries what could not be written. Called with rotating held.
func (l *Ledger) saveAgain() {
	l.mu.Lock()
	again := l.unsaved
	l.unsaved = nil
	l.mu.Unlock()
	for _, u := range again {
		u.seg.poisoned.Store(true) // its file failed once: write another
		u.sd.mu.Lock()
		err := l.save(u.sd, u.seg)
		u.sd.mu.Unlock()
		l.queue(u, err)
		if err == nil {
			l.wake(u.sd)
		}
	}
	if len(again) > 0 && len(l.unsavedNow()) == 0 {
		l.health.clear("seal")
	}
}

// saveAtLast writes what still waits in memory when the ledger closes, past the
// budget if need be: only a disk that is really full may lose it, and not
// without a word.
func (l *Ledger) saveAtLast() error {
	if l.store == nil {
		return nil
	}
	l.store.max.Store(math.MaxInt64)
	l.saveAgain()
	var lost, records int64
	for _, u := range l.unsavedNow() {
		u.sd.mu.Lock()
		if u.seg.file == nil && u.seg.journal == nil {
			for _, block := range u.sd.img.slots {
				if !u.sd.settledEverywhere(block) {
					records++
					lost += u.sd.img.quantity(block)
				}
			}
		}
		u.sd.mu.Unlock()
	}
	if records > 0 {
		return fmt.Errorf("meter: no room on disk for %d units in %d records: they are lost with the process: %w", lost, records, ErrFull)
	}
	return l.sealTrouble()
}

// settledEverywhere reports whether no route has anything left to do for a
// record. The caller holds mu.
func (sd *sealed) settledEverywhere(block uint32) bool {
	o := sd.outcomes(block)
	for i := range sd.head.routes {
		if !o.states[i].settled() {
			return false
		}
	}
	return len(sd.head.routes) > 0 // else it is kept for the books alone, and not there yet
}

// saveInPlace writes the sealed image over the blocks that were counted in. The
// closing stamp comes after them: without it they are recovered as they are.
func (l *Ledger) saveInPlace(sd *sealed, seg *segment) error {
	size := sd.head.size() + int64(len(sd.img.blocks))
	err := l.store.steps(
		step{"save blocks", func() error { _, err := seg.file.WriteAt(sd.img.blocks, sd.head.size()); return err }},
		step{"sync blocks", func() error { return disk.Sync(seg.file) }},
		step{"close head", func() error { return writePart(seg.file, closedAt, sd.head.encodeClosed()) }},
		step{"truncate", func() error { return seg.file.Truncate(size) }},
		step{"sync head", func() error { return disk.Sync(seg.file) }},
	)
	if err == nil {
		l.store.used.Add(size - seg.counted)
	}
	return err
}
