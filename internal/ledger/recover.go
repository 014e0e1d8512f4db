package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// recover brings every segment in dir into the sealed list. It decides by what
// the files say of themselves, never by their names, and trusts no count.
func (l *Ledger) recover(dir string) error {
	segments, err := l.survey(dir)
	if err != nil {
		return err
	}
	all, err := l.recoverAll(l.store, segments, l.totals.folded)
	if err != nil {
		return err
	}
	for _, sd := range all {
		l.noteSealed(sd)
	}
	l.mu.Lock()
	l.insert(all...)
	l.mu.Unlock()
	return l.finishMerges(all)
}

// recoverAll recovers the segments of a directory, where they are.
func (l *Ledger) recoverAll(st *store, segments map[uuid]*found, folded map[uuid]bool) (all []*sealed, err error) {
	for _, f := range segments {
		sd, err := l.recoverSegment(st, f, folded)
		if err != nil {
			return nil, err
		}
		if sd != nil {
			sd.unload()
			all = append(all, sd)
		}
	}
	return all, nil
}

// recoverSegment turns what was found of a segment into a sealed one. nil means
// that nothing is left of it to do.
func (l *Ledger) recoverSegment(st *store, f *found, folded map[uuid]bool) (*sealed, error) {
	st.used.Add(f.bytes)
	journals, err := l.readJournals(f)
	if err != nil {
		return nil, err
	}
	for _, path := range f.stale {
		if f.head.generation > 0 || l.setAside(path, errors.New("a second file of one segment")) {
			st.remove(path)
		}
	}
	if f.head == nil || folded[f.head.uuid] {
		// It died before it was opened, or after everything in it was settled.
		f.removeAll(st)
		return nil, nil
	}
	var blocks []byte
	if f.path != "" {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		blocks = data[min(int64(len(data)), f.head.size()):]
	}
	blocks = blocks[:len(blocks)/blockSize*blockSize]
	wasSealed, u := f.head.end != 0, f.head.uuid
	if wasSealed {
		want := int(f.head.blocks) * blockSize
		if len(blocks) < want {
			l.setAside(f.path, fmt.Errorf("cut short: %d of %d blocks are there", len(blocks)/blockSize, f.head.blocks))
		}
		blocks = blocks[:min(len(blocks), want)]
	} else {
		blocks = f.replay(blocks, journals, l.mostBlocks)
	}
	img, d := newImage(blocks, u, wasSealed)
	d.missing = f.head.missing(img)
	// A head of which only one copy was ever written is no damage.
	if d.any() || f.headDamaged && f.head.start != 0 {
		l.reportDamage(f.path, d)
	}
	if len(img.slots) == 0 && !d.any() {
		f.removeAll(st)
		return nil, nil
	}
	if !wasSealed {
		if f.head.start == 0 {
			f.head.start = l.tick() // its stamp is lost: now is the best that is known
		}
		f.head.end, f.head.last = l.endOfRecovered(f.head.start), l.tick()
		f.head.blocks = uint32(len(blocks) / blockSize)
		sealBlocks(blocks, u)
		img, _ = newImage(blocks, u, true)
		f.head.slots, f.head.dated = img.intact, img.dated
	}
	l.raise(f.head.end - 1)
	sd := newSealed(l, *f.head, f.path)
	sd.store, sd.img, sd.copied = st, img, f.copied
	changed := sd.reconsider()
	sd.recount()
	l.events.learn(sd)
	return sd, l.saveRecovered(sd, f, changed || !wasSealed)
}

// readJournals reads what the journals of a segment say, and makes do with them
// if there is no segment file: heap segments have none until they are sealed.
func (l *Ledger) readJournals(f *found) ([]*journalContent, error) {
	var journals []*journalContent
	for _, path := range f.journals {
		file, err := disk.OpenFile(path, os.O_RDONLY)
		if err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		identity, idErr := disk.IdentityOf(file)
		data, err := io.ReadAll(file)
		file.Close()
		if err := errors.Join(idErr, err); err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		jc, err := decodeJournal(data)
		if err != nil {
			l.setAside(path, err)
			continue
		}
		if jc.damaged > 0 {
			l.setAside(path, fmt.Errorf("journal: %d bytes are unreadable", jc.damaged))
		}
		journals = append(journals, jc)
		if f.path == "" && jc.head != nil && (f.head == nil || jc.head.start >= f.head.start) {
			f.head, f.copied = jc.head, differs(jc.head.identity, identity)
		}
	}
	return journals, nil
}

func (f *found) removeAll(st *store) {
	if f.path != "" {
		st.remove(f.path)
	}
	f.removeJournals(st)
}

// replay merges the journals into the blocks of a segment that was being counted
// in. Counts only grow within a segment, so the larger of slot and journal is
// right; a Last is right in the slot if that is intact. No segment has more than most
// blocks.
func (f *found) replay(blocks []byte, journals []*journalContent, most uint32) []byte {
	u := f.head.uuid
	for _, jc := range journals {
		if jc.head != nil && jc.head.start > f.head.start {
			f.head.start = jc.head.start
		}
		for block, e := range jc.slots {
			if e.word&wordSet == 0 && !e.named || !e.shape.valid() || uint64(block)+uint64(e.shape.blocks()) > uint64(most) {
				continue
			}
			at := int(block) * blockSize
			var s slot
			ok := false
			if at < len(blocks) {
				s, ok = decodeSlot(blocks[at:], u, block, false)
			}
			if !ok {
				if !e.named {
					continue
				}
				if need := at + int(e.shape.blocks())*blockSize; need > len(blocks) {
					blocks = append(blocks, make([]byte, need-len(blocks))...)
				}
				clear(blocks[at : at+blockSize])
				putSlot(blocks[at:], u, block, e.shape, e.primary, e.key)
				order.PutUint64(blocks[at:], e.word)
				continue
			}
			if s.word&wordSet == 0 || s.badWord || s.shape.kind() != sink.Last && e.word&wordCount > s.word&wordCount {
				order.PutUint64(blocks[at:], e.word)
			}
		}
	}
	return blocks
}

// endOfRecovered bounds the window of a segment whose process died: nobody knows
// when exactly, but not after now, nor after the window's regular end.
func (l *Ledger) endOfRecovered(start int64) int64 {
	end := l.tick()
	if l.window > 0 {
		end = min(end, l.windowEndSecond(start))
	}
	return max(end, start+1)
}

// reconsider applies what another process, now dead, may have left undone: an
// attempt without an outcome is in doubt, and so is everything in a copy.
func (sd *sealed) reconsider() (changed bool) {
	for _, block := range sd.img.slots {
		b := sd.img.bytes(block)
		o, intact := getOutcomes(b, sd.head.uuid)
		before := o
		if !intact {
			sd.ledger.reportDamage(sd.path, damage{counts: 1})
		}
		for i := range sd.head.routes {
			switch {
			case o.states[i] == attempted && !sd.copied:
				o.states[i] = inDoubt
			case sd.copied && (o.states[i] == attempted || o.states[i] == pending || o.states[i] == undecided || o.states[i] == inDoubt):
				o.states[i], o.first[i] = inDoubt, unknownTime
			}
		}
		if o != before || !intact {
			o.put(b, sd.head.uuid)
			changed = true
		}
		for i := range sd.head.routes {
			r := sd.table[i]
			if r < 0 || o.first[i] == 0 {
				continue
			}
			if confirm := sd.ledger.routes[r].Confirm; o.states[i] == delivered && confirm > 0 {
				sd.confirm = time.Now().Add(confirm)
			}
			if sd.img.shape(block).kind() == sink.Last {
				ln := &sd.ledger.lanes[r]
				ln.mu.Lock()
				ln.attempted(string(sd.img.key(block)), sd.head.start)
				ln.mu.Unlock()
			}
		}
		undecidedLeft := false
		for i := range sd.head.routes {
			undecidedLeft = undecidedLeft || o.states[i] == undecided
		}
		if undecidedLeft || sd.img.bad[block] {
			sd.decideRoutes(block)
			changed = changed || !bytes.Equal(outcomeBytes(before, sd.head.uuid), b[slotOutcome:blockSize])
		}
	}
	return changed
}

func outcomeBytes(o outcomes, u uuid) []byte {
	b := make([]byte, blockSize)
	o.put(b, u)
	return b[slotOutcome:]
}

// saveRecovered makes a recovered segment durable in a file of its own and
// removes what it came from.
func (l *Ledger) saveRecovered(sd *sealed, f *found, changed bool) error {
	if !changed && !f.copied && !f.headDamaged {
		f.removeJournals(sd.store)
		return nil
	}
	var err error
	if f.path == "" {
		h := sd.head
		var path string
		if path, err = sd.store.writeSegment(&h, sd.img.blocks); err == nil {
			sd.head, sd.path = h, path
		}
	} else {
		err = l.saveOver(sd)
	}
	if err != nil {
		return fmt.Errorf("meter: can't finish the recovery of %s: %w", filepath.Base(f.path), err)
	}
	f.removeJournals(sd.store)
	return nil
}

func (f *found) removeJournals(st *store) {
	for _, path := range f.journals {
		st.remove(path)
	}
}

// saveOver writes a recovered image into its own file, outcomes before identity:
// a copy must not pass for the original before its records are in doubt.
func (l *Ledger) saveOver(sd *sealed) error {
	file, err := disk.OpenFile(sd.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	h := sd.head
	if h.identity, err = disk.IdentityOf(file); err != nil {
		return err
	}
	size := h.size() + int64(len(sd.img.blocks))
	err = sd.store.steps(
		step{"save recovered blocks", func() error { _, err := file.WriteAt(sd.img.blocks, h.size()); return err }},
		step{"sync blocks", func() error { return disk.Sync(file) }},
		step{"save recovered head", func() error { _, err := file.WriteAt(h.encode(), 0); return err }},
		step{"truncate", func() error { return file.Truncate(size) }},
		step{"sync head", func() error { return disk.Sync(file) }},
	)
	if err == nil {
		sd.head = h
		sd.store.used.Add(size - info.Size())
	}
	return err
}

// noteSealed brings a recovered segment into the running month's totals.
func (l *Ledger) noteSealed(sd *sealed) {
	if sd.head.merged {
		return
	}
	if monthOf(sd.head.start) < monthOf(l.tick()) && !l.periodic.Load() {
		return
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if _, err := sd.load(); err != nil {
		return // Take says so, too
	}
	defer sd.unload()
	for _, block := range sd.img.slots {
		if !sd.img.bad[block] {
			at := sd.when(block)
			l.noteUsage(sd.img.key(block), sd.img.shape(block).kind(), monthOf(at.used), at, sd.head.end, sd.img.quantity(block))
		}
	}
}

// noteUsage adds to a series' total in the running month, and to that of a quota's
// period; without a window it is known of the month alone. It was sealed at end.
func (l *Ledger) noteUsage(key []byte, kind sink.Kind, month int32, at when, end, quantity int64) {
	feature, subject, dimensions, err := decodeKey(key)
	if err != nil {
		return
	}
	f := l.featureFromDisk(feature, kind)
	if f == nil {
		return // the feature has another kind now, and its totals began anew
	}
	s, err := f.Series(subject, dimensions)
	if err != nil {
		return
	}
	note := func() {
		l.totalsMu.Lock()
		l.note(s, month, end, quantity)
		l.totalsMu.Unlock()
	}
	if t := s.tally(); t != nil {
		t.mu.Lock() // nobody reads the month meanwhile
		defer t.mu.Unlock()
		t.recover(month, at, quantity)
		note()
		return
	}
	note()
	if t := s.tally(); t != nil {
		t.catchUp() // it was made meanwhile
	}
}

// reportDamage remembers what could not be read, and keeps a copy of it.
func (l *Ledger) reportDamage(path string, d damage) {
	l.setAside(path, fmt.Errorf("%d blocks and %d counts are unreadable, %d slots are missing", d.blocks, d.counts, d.missing))
}

// setAside copies a damaged file to where nothing deletes it, and says so. It
// returns false if there is no such copy.
func (l *Ledger) setAside(path string, why error) (kept bool) {
	if l.store == nil || path == "" {
		l.health.set("damage", fmt.Errorf("meter: damaged: %w", why))
		return false
	}
	to, err := l.store.setAside(path)
	if err != nil {
		l.health.set("damage "+filepath.Base(path), fmt.Errorf("meter: %s is damaged: %w (no copy of it could be kept: %w)", filepath.Base(path), why, err))
		return false
	}
	err = fmt.Errorf("meter: %s is damaged: %w (kept as it was found: %s; delete that when you are done with it)", filepath.Base(path), why, to)
	l.health.setUntil("damage "+filepath.Base(path), err, func() bool {
		_, err := os.Lstat(to)
		return errors.Is(err, os.ErrNotExist)
	})
	return true
}
