package ledger

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

var errPoisoned = errors.New("segment's memory is gone")

// segment is one window being counted: memory in blocks, mapped from a file
// where the system can do that safely, else on the heap. Both behave alike; only
// what outlives the process differs.
type segment struct {
	head     head
	path     string    // of its file; "": none (yet)
	file     *os.File  // nil: heap
	journal  *journal  // nil: none
	limit    uint64    // of a word, less than most if some of that is kept for stripes
	most     uint64    // of a record
	mapped   bool      // touching the memory can fault
	store    *store    // that growing is booked to; nil: not booked
	fallback bool      // stands in for a segment that there was no room for
	refusal  error     // takes no series, for this reason; nil: does
	counted  int64     // bytes that stand for it in the disk budget
	blocks   uint32    // that it may have; behind them a window ends early
	since    time.Time // when it came into use, by the monotonic clock

	poisoned atomic.Bool
	saved    *atomic.Bool // sealed, and on disk; who only wants to know this holds on to nothing else
	extents  atomic.Pointer[[]*extent]
	chunks   atomic.Pointer[[]*chunk]
	spreads  sync.Map // *spread by the block of the slot that was divided: few
	rooms    sync.Map // *room by the block of the slot of a series that counts events
	behind   sync.Map // cells, by number, of series that have gone on to another segment, until they are sealed
	reserved int64    // bytes of the file; guarded by grow

	grow sync.Mutex // held while extents or chunks are added
	_    [64]byte   // the cursors below are written by every registration
	next atomic.Uint32
	used atomic.Uint32 // cells
}

// extent is one contiguous piece of the segment's blocks.
type extent struct {
	first   uint32 // number of its first block
	blocks  uint32
	mem     []byte
	mapping *disk.Mapping // nil: heap
}

const chunkCells = 512

// chunk holds cells in bulk, so that a million series make no million objects.
type chunk struct {
	cells [chunkCells]cell
	ready [chunkCells]atomic.Bool             // cell may be read by sealer and syncer
	ids   atomic.Pointer[[chunkCells]eventID] // of those cells that are events'; nil: none is
}

const (
	firstExtent = 64 << 10
	maxExtent   = 4 << 20
	mostBlocks  = 1 << 24 // of a segment; recovery takes more for damage
)

var errLarge = errors.New("segment has as many blocks as it may")

// newSegment makes a segment with room for bytes of blocks. file is nil for a
// heap segment.
func newSegment(h head, file *os.File, bytes int64, maxQuantity int64) (*segment, error) {
	seg := &segment{head: h, file: file, mapped: file != nil, limit: shareOf(maxQuantity), most: uint64(maxQuantity), blocks: mostBlocks, saved: new(atomic.Bool)}
	seg.extents.Store(new([]*extent))
	seg.chunks.Store(new([]*chunk))
	seg.grow.Lock()
	defer seg.grow.Unlock()
	if err := seg.extend(bytes); err != nil {
		return nil, err
	}
	return seg, nil
}

// extend adds an extent of at least bytes. The caller holds grow.
func (seg *segment) extend(bytes int64) error {
	bytes = min(max(bytes, firstExtent), 1<<30)
	bytes = (bytes + firstExtent - 1) / firstExtent * firstExtent
	old := *seg.extents.Load()
	first := uint32(0)
	if n := len(old); n > 0 {
		first = old[n-1].first + old[n-1].blocks
	}
	e := &extent{first: first, blocks: uint32(bytes / blockSize)}
	if seg.file == nil {
		words := make([]uint64, bytes/8)
		e.mem = unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), bytes)
	} else {
		if seg.store != nil {
			if err := seg.store.room(bytes); err != nil {
				return err
			}
		}
		offset := headSize + int64(first)*blockSize
		if err := disk.Reserve(seg.file, offset, bytes); err != nil {
			return err
		}
		m, err := disk.Map(seg.file, offset, bytes)
		if err != nil {
			return err
		}
		e.mem, e.mapping = m.Bytes(), m
		// The mapping outlives the segment's work by as long as some writer can
		// still reach a cell of it.
		runtime.AddCleanup(seg, func(m *disk.Mapping) { _ = m.Unmap() }, m)
	}
	seg.reserved += bytes
	if seg.store != nil {
		seg.store.used.Add(bytes)
		seg.counted += bytes
	}
	extents := append(old[:len(old):len(old)], e)
	seg.extents.Store(&extents)
	return nil
}

// allocate takes n blocks side by side. Blocks at the end of an extent that are
// too few stay empty. errLarge: the window must end.
func (seg *segment) allocate(n uint32) (*extent, uint32, error) {
	for {
		extents := *seg.extents.Load()
		at := seg.next.Load()
		last := extents[len(extents)-1]
		if at+n > seg.blocks {
			return nil, 0, errLarge
		}
		if at+n > last.first+last.blocks {
			if err := seg.growFrom(last); err != nil {
				return nil, 0, err
			}
			continue
		}
		e := last
		for i := len(extents) - 2; i >= 0 && at < e.first; i-- {
			e = extents[i]
		}
		if at+n > e.first+e.blocks {
			// Skip the rest of this extent.
			seg.next.CompareAndSwap(at, e.first+e.blocks)
			continue
		}
		if seg.next.CompareAndSwap(at, at+n) {
			return e, at, nil
		}
	}
}

func (seg *segment) growFrom(last *extent) error {
	seg.grow.Lock()
	defer seg.grow.Unlock()
	extents := *seg.extents.Load()
	if extents[len(extents)-1] != last {
		return nil
	}
	return seg.extend(min(int64(last.blocks)*blockSize*2, maxExtent))
}

// register gives s a slot. The caller holds the lock of the series' shard, which
// makes it the only one for s here.
func (seg *segment) register(s *Series) (place, error) {
	if seg.refusal != nil {
		return place{}, seg.refusal
	}
	if seg.poisoned.Load() {
		return place{}, errPoisoned
	}
	var buf [256]byte
	key := s.appendKey(buf[:0])
	i, c, err := seg.addSlot(s, newShape(len(key), s.feature.kind, 0), 0, key)
	if err != nil {
		return place{}, err
	}
	p := place{series: s, seg: seg, word: seg.word(c.block), cell: i}
	if s.is(undivided) {
		seg.rooms.Store(c.block, &room{whole: true})
	} else if s.is(hot) {
		p.spread = seg.divide(s, c.block)
	}
	return p, nil
}

func (s *Series) appendKey(b []byte) []byte {
	if s.is(dimensioned) {
		return append(b, s.name()...)
	}
	return appendKey(b, s.feature.name, s.name(), nil)
}

// addSlot writes a slot and makes its cell, number i.
func (seg *segment) addSlot(s *Series, sh shape, primary uint32, key []byte) (i uint32, c *cell, err error) {
	n := sh.blocks()
	e, block, err := seg.allocate(n)
	if err != nil {
		return 0, nil, err
	}
	b := e.mem[(block-e.first)*blockSize:][:n*blockSize]
	write := func() {
		order.PutUint32(b[slotClaim:], n)
		putSlot(b, seg.head.uuid, block, sh, primary, key)
	}
	if e.mapping == nil {
		write()
	} else if err := disk.Guard(write); err != nil {
		return 0, nil, errPoisoned
	}
	if !sh.stripe() {
		primary = block
	}
	i = seg.used.Add(1) - 1
	for int(i/chunkCells) >= len(*seg.chunks.Load()) {
		seg.grow.Lock()
		if old := *seg.chunks.Load(); int(i/chunkCells) >= len(old) {
			chunks := append(old[:len(old):len(old)], new(chunk))
			seg.chunks.Store(&chunks)
		}
		seg.grow.Unlock()
	}
	ch := (*seg.chunks.Load())[i/chunkCells]
	c = &ch.cells[i%chunkCells]
	if sh.event() {
		primary |= eventCell
		ids := ch.ids.Load()
		if ids == nil {
			ch.ids.CompareAndSwap(nil, new([chunkCells]eventID))
			ids = ch.ids.Load()
		}
		ids[i%chunkCells] = eventID(key)
	}
	c.series, c.block, c.primary = s, block, primary
	ch.ready[i%chunkCells].Store(true)
	return i, c, nil
}

// cell is the cell of this number, which was added before.
func (seg *segment) cell(i uint32) *cell {
	return &(*seg.chunks.Load())[i/chunkCells].cells[i%chunkCells]
}

// word is where the slot at block counts.
func (seg *segment) word(block uint32) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&seg.bytes(block)[slotWord]))
}

// bytes are the segment's memory from the slot at block on.
func (seg *segment) bytes(block uint32) []byte {
	extents := *seg.extents.Load()
	i := len(extents) - 1
	for block < extents[i].first {
		i--
	}
	return extents[i].mem[int(block-extents[i].first)*blockSize:]
}

// divide gives s, whose own slot is at block, further slots; nil when there is no
// room for them.
func (seg *segment) divide(s *Series, block uint32) *spread {
	if seg.most < spreadFrom {
		return nil
	}
	sp := &spread{}
	for range stripesWanted() {
		_, stripe, err := seg.addSlot(s, newShape(0, sink.Sum, flagStripe), block, nil)
		if err != nil {
			return nil
		}
		sp.stripes, sp.words = append(sp.stripes, stripe), append(sp.words, seg.word(stripe.block))
	}
	sp.mask = uint64(len(sp.stripes) - 1)
	seg.spreads.Store(block, sp)
	return sp
}

// spread is what the slot at block was divided into; nil: nothing.
func (seg *segment) spread(block uint32) *spread {
	sp, _ := seg.spreads.Load(block)
	found, _ := sp.(*spread)
	return found
}

// spreadFrom is the least limit of a word at which a series is spread: below it,
// a stripe's share would be so small that windows end early for it.
const spreadFrom = 1 << 40

// shareOf is what a slot's own word may grow to. The rest of what one record can
// carry is the stripes' and the events', whether it has any or not: a writer may
// not know yet.
func shareOf(most int64) uint64 { return uint64(most - most/4) }

// stripeLimit is what a stripe's word may grow to.
func (seg *segment) stripeLimit() uint64 {
	if seg.most < spreadFrom {
		return 0
	}
	return (seg.most - seg.limit) / 2 / maxStripes
}

// each calls visit for every cell registered so far.
func (seg *segment) each(visit func(i int, c *cell)) {
	n := int(seg.used.Load())
	chunks := *seg.chunks.Load()
	for i := 0; i < n && i/chunkCells < len(chunks); i++ {
		ch := chunks[i/chunkCells]
		if ch.ready[i%chunkCells].Load() {
			visit(i, &ch.cells[i%chunkCells])
		}
	}
}

func (seg *segment) empty() bool { return seg.used.Load() == 0 }

// prefault touches every page, so that the first counts do not have to.
func (seg *segment) prefault() {
	for _, e := range *seg.extents.Load() {
		if e.mapping != nil {
			_ = disk.Populate(e.mem)
		}
	}
}

// image copies the blocks used so far to the heap, word by word: a late writer
// may still look at one that it finds sealed.
func (seg *segment) image() ([]byte, error) {
	n := int(seg.next.Load()) * blockSize
	words := make([]uint64, n/8)
	out := words
	for _, e := range *seg.extents.Load() {
		take := min(len(e.mem)/8, len(out))
		if take == 0 {
			break
		}
		from := unsafe.Slice((*uint64)(unsafe.Pointer(&e.mem[0])), take)
		copyOut := func() {
			for i := range from {
				out[i] = atomic.LoadUint64(&from[i])
			}
		}
		if e.mapping == nil {
			copyOut()
		} else if err := disk.Guard(copyOut); err != nil {
			return nil, err
		}
		out = out[take:]
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n), nil
}
