package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"sync/atomic"
	"unsafe"

	"github.com/inprocess/meter/sink"
)

// A segment file is a head and then blocks of 64 bytes. A slot is one block,
// followed by the blocks that hold its key, so that a scan in steps of one block
// finds every intact slot behind a damaged one.
//
// The head has three parts that are written at different times, each within its
// own disk sectors and under its own checksum, so that no torn write can take an
// older part with it: who (at creation), opened (at activation), closed (at
// sealing). All of it stands there twice, so that no single damage costs the
// whole segment.
const (
	formatVersion = 1
	blockSize     = 64
	headSize      = 4096 // merged segments add their input list, twice, in whole blocks

	whoSize    = 1024
	openedAt   = 1024
	closedAt   = 1536
	sectorSize = 512
	mirrorAt   = 2048 // the second copy of everything above
)

var (
	magic      = [8]byte{'M', 'E', 'T', 'E', 'R', 'S', 'E', 'G'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.NativeEndian // of the machine: counters are used in place
)

// uuid names a segment for ever, across renames and generations.
type uuid [16]byte

func newUUID() (u uuid) {
	rand.Read(u[:]) // never fails
	return u
}

// checksum is seeded with the segment's name, so that bytes of another segment
// never pass for this one's; the seed also keeps zeros from validating.
func checksum(u uuid, parts ...[]byte) uint32 {
	sum := crc32.Update(0x6d657465, castagnoli, u[:])
	for _, part := range parts {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

// A slot's bytes. The part from slotOutcome on belongs to delivery and is
// written in one piece; the part before it is final once the slot is sealed.
const (
	slotWord    = 0  // uint64: sealed, set, count
	slotSeal    = 8  // uint32: checksum over word and slotSum, once sealed
	slotSum     = 12 // uint32: checksum over block number, slotShape and key
	slotShape   = 16 // uint32: key length, kind, flags; written last, so 0 means unregistered
	slotOutcome = 20 // uint32: checksum over what follows; 0 with all zeros: undecided
	slotStates  = 24 // one byte per route
	slotTimes   = 32 // uint32 seconds of the first attempt per route
	slotClaim   = 32 // uint32 while the segment is active: blocks taken by a slot being registered
	slotPrimary = 36 // uint32 of a stripe: the block of the slot that it counts for
	slotEvent   = 40 // 16 bytes of an event's stripe: its ID, which is its key

	wordSealed = 1 << 63
	wordSet    = 1 << 62
	wordCount  = wordSet - 1

	flagRegistered = 1 << 0
	flagStripe     = 1 << 1
	flagEvent      = 1 << 2 // a stripe, too
)

type shape uint32

func newShape(keyLen int, kind sink.Kind, flags byte) shape {
	return shape(keyLen) | shape(kind)<<16 | shape(flags|flagRegistered)<<24
}

func (s shape) keyLen() int { return int(s & 0xffff) }

func (s shape) kind() sink.Kind { return sink.Kind(s >> 16) }

func (s shape) stripe() bool { return s>>24&flagStripe != 0 }

func (s shape) event() bool { return s>>24&flagEvent != 0 }

// valid reports whether a slot can have this shape.
func (s shape) valid() bool {
	return s.kind() <= sink.Last && (!s.event() || s.stripe() && s.keyLen() == len(eventID{}))
}

// keyAt is where in a slot's bytes its key stands: behind it, but for an event.
func (s shape) keyAt() int {
	if s.event() {
		return slotEvent
	}
	return blockSize
}

// blocks is how many blocks a slot of this shape takes with its key.
func (s shape) blocks() uint32 {
	if s.event() {
		return 1
	}
	return blocksFor(s.keyLen())
}

// blocksFor is how many blocks a slot and its key take.
func blocksFor(keyLen int) uint32 { return 1 + uint32((keyLen+blockSize-1)/blockSize) }

func shapeSum(u uuid, block uint32, s shape, primary uint32, key []byte) uint32 {
	var b [12]byte
	order.PutUint32(b[:], block)
	order.PutUint32(b[4:], uint32(s))
	if s.stripe() {
		order.PutUint32(b[8:], primary)
	}
	return checksum(u, b[:], key)
}

func sealSum(u uuid, word uint64, shapeSum uint32) uint32 {
	var b [12]byte
	order.PutUint64(b[:], word)
	order.PutUint32(b[8:], shapeSum)
	return checksum(u, b[:])
}

// putSlot writes a slot and its key at the beginning of b.
func putSlot(b []byte, u uuid, block uint32, s shape, primary uint32, key []byte) {
	copy(b[s.keyAt():], key)
	if s.stripe() {
		order.PutUint32(b[slotPrimary:], primary)
	}
	order.PutUint32(b[slotSum:], shapeSum(u, block, s, primary, key))
	// The shape last, whatever the compiler thinks: a process can be killed
	// between any two stores.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[slotShape])), uint32(s))
}

// sealSlot sets a slot's final word.
func sealSlot(b []byte, u uuid, word uint64) {
	order.PutUint64(b[slotWord:], word|wordSealed)
	order.PutUint32(b[slotSeal:], sealSum(u, word|wordSealed, order.Uint32(b[slotSum:])))
}

// slot is a decoded slot. key aliases the bytes that it was decoded from.
type slot struct {
	block   uint32
	shape   shape
	primary uint32
	word    uint64
	key     []byte
	badWord bool // the key is intact, the sealed count is not
}

// scan decodes the blocks of a segment and calls found for every intact slot and
// damaged for every run of blocks that is neither slot, key nor empty. What was
// claimed and never registered it empties.
func scan(blocks []byte, u uuid, sealed bool, found func(slot), damaged func(first, n uint32)) {
	total := uint32(len(blocks) / blockSize)
	badFrom, bad := uint32(0), uint32(0)
	flush := func() {
		if bad > 0 {
			damaged(badFrom, bad)
			bad = 0
		}
	}
	for i := uint32(0); i < total; {
		b := blocks[i*blockSize:]
		if s, ok := decodeSlot(b, u, i, sealed); ok {
			flush()
			found(s)
			i += s.shape.blocks()
			continue
		}
		if allZero(b[:blockSize]) {
			flush()
			i++
			continue
		}
		if claim := claimed(blocks, u, i, total); !sealed && claim > 0 {
			flush()
			clear(blocks[i*blockSize : (i+claim)*blockSize]) // a sealed segment has no claims
			i += claim
			continue
		}
		if bad == 0 {
			badFrom = i
		}
		bad++
		i++
	}
	flush()
}

// claimed is how many blocks at i a process had taken for a slot when it died
// before the slot was registered, and so before anything was counted there.
func claimed(blocks []byte, u uuid, i, total uint32) uint32 {
	b := blocks[i*blockSize:]
	claim := order.Uint32(b[slotClaim:])
	if order.Uint32(b[slotShape:]) != 0 || order.Uint64(b[slotWord:]) != 0 || claim > total-i || claim > blocksFor(maxKey) {
		return 0
	}
	for n := uint32(1); n < claim; n++ {
		if _, ok := decodeSlot(blocks[(i+n)*blockSize:], u, i+n, false); ok {
			return 0 // damage, then: it would hide a good slot
		}
	}
	return claim
}

func decodeSlot(b []byte, u uuid, block uint32, sealed bool) (s slot, ok bool) {
	if len(b) < blockSize {
		return s, false
	}
	s.block, s.shape = block, shape(order.Uint32(b[slotShape:]))
	if s.shape == 0 || !s.shape.valid() || len(b) < int(s.shape.blocks())*blockSize {
		return s, false
	}
	if s.shape.stripe() {
		s.primary = order.Uint32(b[slotPrimary:])
	}
	s.key = b[s.shape.keyAt() : s.shape.keyAt()+s.shape.keyLen()]
	if order.Uint32(b[slotSum:]) != shapeSum(u, block, s.shape, s.primary, s.key) {
		return s, false
	}
	s.word = order.Uint64(b[slotWord:])
	s.badWord = s.word&wordCount > MaxQuantity
	if sealed {
		s.badWord = s.badWord || s.word&wordSealed == 0 || order.Uint32(b[slotSeal:]) != sealSum(u, s.word, order.Uint32(b[slotSum:]))
	}
	return s, true
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
