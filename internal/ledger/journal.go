package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// journal makes the counts of one active segment safe from power loss. Mapped
// pages are never synced while they are counted in, for that stalls the writers;
// what changed is appended here as absolute values and synced instead. For heap
// segments the journal is also all that outlives the process. It goes when its
// segment is sealed and safe itself.
type journal struct {
	ledger *Ledger
	seg    *segment

	mu        sync.Mutex // held while the file is written and synced
	file      *os.File
	end       int64
	room      int64
	opened    atomic.Bool // the head frame is written
	broken    error       // the last file failed: the next sync starts another
	mostBytes int64       // at which the next sync starts another, too
	closed    bool        // the segment is safe: nothing is left to do
	buf       []byte
	named     map[uint32]bool // slots that this file names for their events
	waiting   rounds[uint32]  // numbers of cells
}

const (
	journalPreamble = 64
	journalChunk    = 1 << 20
	compactJournal  = 32 << 20

	frameHead    frameKind = 1 // a segment's head
	frameEntries frameKind = 2
)

var journalMagic = [8]byte{'M', 'E', 'T', 'E', 'R', 'J', 'N', 'L'}

// newJournal creates the file for a segment that is about to be used.
func newJournal(l *Ledger, seg *segment) (*journal, error) {
	j := &journal{ledger: l, seg: seg, mostBytes: compactJournal}
	if err := j.create(); err != nil {
		if j.file != nil {
			j.drop(j.file)
		}
		return nil, err
	}
	return j, nil
}

func (j *journal) create() error {
	f, err := j.ledger.store.create(fmt.Sprintf("%v.%s%s", j.seg.head.uuid, newUUID().String()[:8], journalSuffix))
	if err != nil {
		return err
	}
	p := make([]byte, journalPreamble)
	copy(p, journalMagic[:])
	order.PutUint32(p[8:], formatVersion)
	copy(p[16:], j.seg.head.uuid[:])
	order.PutUint32(p[journalPreamble-4:], checksum(j.seg.head.uuid, p[:journalPreamble-4]))
	j.file, j.end, j.room, j.named = f, 0, 0, make(map[uint32]bool)
	j.opened.Store(false)
	if j.seg.file == nil {
		// No segment file yet: the journal's own identity tells it from a copy.
		if j.seg.head.identity, err = disk.IdentityOf(f); err != nil {
			return err
		}
	}
	return j.append(p)
}

// append writes b behind what is there, without syncing.
func (j *journal) append(b []byte) error {
	if err := j.ledger.store.before("append journal"); err != nil {
		return err
	}
	if need := j.end + int64(len(b)); need > j.room {
		grow := (need - j.room + journalChunk - 1) / journalChunk * journalChunk
		if err := disk.Reserve(j.file, j.room, grow); err != nil {
			return err
		}
		j.room += grow
	}
	if _, err := j.file.WriteAt(b, j.end); err != nil {
		return err
	}
	j.end += int64(len(b))
	return nil
}

// begin notes the segment's window, durably.
func (j *journal) begin() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(func(func(int, *cell)) {}, true)
}

// sync makes every count so far safe.
func (j *journal) sync() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	err := j.write(j.seg.each, false)
	j.mu.Unlock()
	return j.checked(err)
}

// commit makes what was counted in cell number i safe, together with everybody who
// waits.
func (j *journal) commit(i uint32) error {
	if j == nil {
		return nil
	}
	return j.waiting.join(i, func(cells []uint32) error {
		j.mu.Lock()
		err := j.write(func(visit func(int, *cell)) {
			for _, i := range cells {
				c := j.seg.cell(i)
				visit(int(i), c)
				if sp := j.seg.spread(c.block); sp != nil {
					for _, stripe := range sp.stripes {
						visit(-1, stripe)
					}
				}
			}
		}, false)
		j.mu.Unlock()
		return j.checked(err)
	})
}

// errGone: what can't be read can't be made safe.
var errGone = fmt.Errorf("%w: the memory that it was counted in is gone", ErrUnsynced)

// checked has counting go on elsewhere once the segment's memory is gone.
func (j *journal) checked(err error) error {
	if errors.Is(err, errGone) {
		j.ledger.poison(j.seg)
	}
	return err
}

// write appends the cells that changed and syncs. cells visits them, with their
// numbers; those of stripes need none. The caller holds mu.
func (j *journal) write(cells func(visit func(int, *cell)), head bool) error {
	if j.closed {
		return nil
	}
	if j.seg.poisoned.Load() || j.seg.cut() {
		return errGone // the words of a page that was cut read as zeros, and count anew
	}
	if j.broken == nil && j.end < j.mostBytes {
		err := j.tryWrite(cells, head, false)
		if err == nil || errors.Is(err, errGone) {
			return err
		}
		j.broken = err
	}
	// A file that failed a write or a sync is never trusted again; and one that has
	// grown over a long window is replaced by what the segment holds now.
	if err := j.replace(); errors.Is(err, errGone) {
		return err
	} else if err != nil {
		j.broken = err
		err = fmt.Errorf("%w: journal: %w", ErrUnsynced, err)
		j.ledger.health.set("journal", err)
		return err
	}
	j.broken = nil
	j.mostBytes = max(j.mostBytes, 4*j.end)
	j.ledger.health.clear("journal")
	return nil
}

// tryWrite does it in this file. anew says that nothing stands there yet: all that is
// known is written, also what can't be read any more.
func (j *journal) tryWrite(cells func(visit func(int, *cell)), head, anew bool) error {
	before, gone := j.end, false
	var failed error
	open := func() {
		// Only behind a count is the window certain not to move any more.
		if failed == nil && !j.opened.Swap(true) {
			// Twice: without it a heap segment's journal says nothing to anybody.
			frame := appendFrame(nil, j.seg.head.uuid, frameHead, j.seg.head.encode())
			failed = j.append(append(frame, frame...))
		}
	}
	if head {
		j.opened.Store(false)
		open()
	}
	j.buf = j.buf[:0]
	flush := func() {
		if len(j.buf) > 0 {
			open()
		}
		if failed == nil && len(j.buf) > 0 {
			failed = j.append(appendFrame(nil, j.seg.head.uuid, frameEntries, j.buf))
		}
		j.buf = j.buf[:0]
	}
	cells(func(i int, c *cell) {
		word, ok := j.seg.load(c)
		word &^= wordSealed
		if !ok || c.fellFrom(c.journaled, word) {
			gone, word = true, c.journaled
		}
		if anew {
			c.journaled = 0
		}
		if word == c.journaled {
			return
		}
		var id eventID
		if c.event() {
			id = j.seg.eventID(i)
			if !j.named[c.of()] {
				j.named[c.of()] = true
				j.buf = appendName(j.buf, c)
			}
		}
		j.buf = appendEntry(j.buf, c, id, word)
		c.journaled = word
		if len(j.buf) > 64<<10 {
			flush()
		}
	})
	flush()
	if failed == nil && j.end > before {
		if failed = j.ledger.store.before("sync journal"); failed == nil {
			failed = disk.Sync(j.file)
		}
	}
	if failed == nil && gone {
		return errGone
	}
	return failed
}

// replace starts a new file with everything that the segment holds.
func (j *journal) replace() error {
	old := j.file
	if err := j.create(); err != nil {
		if j.file != old {
			j.drop(j.file)
			j.file = old
		}
		return err
	}
	err := j.tryWrite(j.seg.each, true, true)
	if err != nil && !errors.Is(err, errGone) {
		j.drop(j.file)
		j.file = old
		return err
	}
	j.drop(old)
	return err
}

func (j *journal) drop(f *os.File) {
	f.Close()
	j.ledger.store.remove(f.Name())
}

// reopen has the head written again before the next entry.
func (j *journal) reopen() { j.opened.Store(false) }

// lastWord is what the journal holds of c, as far as is known.
func (j *journal) lastWord(c *cell) uint64 {
	if j == nil {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return c.journaled
}

// close ends the journal of a segment that is safe without it.
func (j *journal) close() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.closed = true
		j.drop(j.file)
		j.ledger.health.clear("journal")
	}
}

// appendEntry encodes a cell's absolute value. Names go along the first time; that
// of a stripe is its series', told by the slot that it counts for. One series has
// many events: who writes theirs names the series before the first.
func appendEntry(b []byte, c *cell, id eventID, word uint64) []byte {
	named := c.journaled == 0
	switch {
	case c.event():
		return appendSlot(b, c.block, eventShape, c.of(), word, named, id[:])
	case c.stripe():
		if named {
			b = appendName(b, c)
		}
		return appendSlot(b, c.block, newShape(0, sink.Sum, flagStripe), c.of(), word, named, nil)
	}
	var buf [256]byte
	key := c.series.appendKey(buf[:0])
	return appendSlot(b, c.block, newShape(len(key), c.series.feature.kind, 0), 0, word, named, key)
}

// appendName encodes the slot that a stripe counts for, without a count.
func appendName(b []byte, c *cell) []byte {
	var buf [256]byte
	key := c.series.appendKey(buf[:0])
	return appendSlot(b, c.of(), newShape(len(key), c.series.feature.kind, 0), 0, 0, true, key)
}

func appendSlot(b []byte, block uint32, sh shape, primary uint32, word uint64, named bool, key []byte) []byte {
	b = binary.AppendUvarint(b, uint64(block))
	b = binary.AppendUvarint(b, uint64(sh))
	b = binary.AppendUvarint(b, word)
	if !named {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendUvarint(b, uint64(primary))
	return append(b, key...)
}

// journaled is what a journal says of one slot.
type journaled struct {
	shape   shape
	primary uint32
	key     []byte // nil without named
	named   bool   // shape's key and primary were read, not only the count
	word    uint64
}

// journalContent is what could be read of a journal.
type journalContent struct {
	uuid    uuid
	head    *head
	slots   map[uint32]journaled
	damaged int // bytes
}

var errNotAJournal = errors.New("not a journal")

// decodePreamble tells whose journal b is.
func decodePreamble(b []byte) (u uuid, err error) {
	if len(b) < journalPreamble || !bytes.HasPrefix(b, journalMagic[:]) {
		return u, errNotAJournal
	}
	copy(u[:], b[16:])
	if order.Uint32(b[journalPreamble-4:]) != checksum(u, b[:journalPreamble-4]) {
		return u, errors.New("journal preamble damaged")
	}
	if v := order.Uint32(b[8:]); v != formatVersion {
		return u, fmt.Errorf("%w: a journal has format %d, this program writes and reads %d", ErrFormat, v, formatVersion)
	}
	return u, nil
}

// decodeJournal reads whatever is intact of b.
func decodeJournal(b []byte) (*journalContent, error) {
	u, err := decodePreamble(b)
	if err != nil {
		return nil, err
	}
	jc := &journalContent{uuid: u, slots: make(map[uint32]journaled)}
	jc.damaged = readFrames(b[journalPreamble:], jc.uuid, func(kind frameKind, payload []byte, _ int) {
		switch kind {
		case frameHead:
			if h, _, err := decodeHead(payload); err == nil && h.uuid == jc.uuid {
				jc.head = h
			}
		case frameEntries:
			jc.readEntries(payload)
		}
	})
	return jc, nil
}

func (jc *journalContent) readEntries(b []byte) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		block, sh, word := uint32(next()), shape(next()), next()
		if len(b) == 0 {
			return
		}
		hasKey := b[0]
		b = b[1:]
		e := jc.slots[block]
		if hasKey == 1 {
			e.primary = uint32(next())
			if sh.keyLen() > len(b) {
				return
			}
			e.shape, e.key, e.named = sh, b[:sh.keyLen()], true
			b = b[sh.keyLen():]
		}
		e.shape = sh
		if word&wordSet != 0 && (sh.kind() == sink.Last || word&wordCount >= e.word&wordCount) {
			e.word = word
		}
		jc.slots[block] = e
	}
}
