package ledger

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/inprocess/meter/internal/disk"
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

// owed is one entry of a segment's route table: its outcome bytes belong to this
// name at this destination, whatever is configured later.
type owed struct {
	name        string
	destination [8]byte
}

const maxInputs = 4096 // of one merged segment

func destinationOf(address string) (d [8]byte) {
	sum := sha256.Sum256([]byte(address))
	copy(d[:], sum[:])
	return d
}

// head is a segment's head.
type head struct {
	uuid       uuid
	generation uint32
	identity   disk.Identity // of the file it was written to
	routes     []owed
	inputs     []uuid // of a merged segment
	inputsSum  uint32 // as read
	merged     bool
	start      int64 // seconds; 0: never opened
	end        int64 // seconds; 0: never closed
	blocks     uint32
	slots      uint32 // intact slots at sealing, stripes and unset ones included
	jumped     bool   // the wall clock jumped while it was open
}

func (h *head) size() int64 { return headSize + 2*h.inputsSize() }

func (h *head) inputsSize() int64 {
	n := len(h.inputs) * len(uuid{})
	return int64((n + blockSize - 1) / blockSize * blockSize)
}

// encodeWho renders the part that never changes.
func (h *head) encodeWho() []byte {
	b := make([]byte, whoSize)
	copy(b, magic[:])
	order.PutUint32(b[8:], formatVersion)
	if h.merged {
		b[12] = 1
	}
	copy(b[16:], h.uuid[:])
	order.PutUint32(b[32:], h.generation)
	order.PutUint64(b[40:], h.identity.Inode)
	order.PutUint64(b[48:], uint64(h.identity.Birth))
	order.PutUint32(b[56:], uint32(len(h.inputs)))
	order.PutUint32(b[60:], checksum(h.uuid, h.encodeInputs()))
	b[64] = byte(len(h.routes))
	for i, r := range h.routes {
		at := b[80+i*64:]
		at[0] = byte(len(r.name))
		copy(at[1:1+MaxRouteName], r.name)
		copy(at[56:], r.destination[:])
	}
	order.PutUint32(b[whoSize-4:], checksum(h.uuid, b[:whoSize-4]))
	return b
}

func (h *head) encodeInputs() []byte {
	b := make([]byte, h.inputsSize())
	for i, u := range h.inputs {
		copy(b[i*len(u):], u[:])
	}
	return b
}

func (h *head) encodeOpened() []byte {
	b := make([]byte, sectorSize)
	copy(b, "opened\x00\x00")
	order.PutUint64(b[8:], uint64(h.start))
	order.PutUint32(b[sectorSize-4:], checksum(h.uuid, b[:sectorSize-4]))
	return b
}

func (h *head) encodeClosed() []byte {
	b := make([]byte, sectorSize)
	copy(b, "closed\x00\x00")
	order.PutUint64(b[8:], uint64(h.start))
	order.PutUint64(b[16:], uint64(h.end))
	order.PutUint32(b[24:], h.blocks)
	if h.jumped {
		b[28] = 1
	}
	order.PutUint32(b[32:], h.slots)
	order.PutUint32(b[sectorSize-4:], checksum(h.uuid, b[:sectorSize-4]))
	return b
}

// encode renders the whole head.
func (h *head) encode() []byte {
	b := make([]byte, headSize, h.size())
	for _, at := range [...]int{0, mirrorAt} {
		copy(b[at:], h.encodeWho())
		if h.start != 0 {
			copy(b[at+openedAt:], h.encodeOpened())
		}
		if h.end != 0 {
			copy(b[at+closedAt:], h.encodeClosed())
		}
	}
	return append(append(b, h.encodeInputs()...), h.encodeInputs()...)
}

// writePart writes one part of the head, in both places.
func writePart(f io.WriterAt, at int64, part []byte) error {
	for _, copyAt := range [...]int64{0, mirrorAt} {
		if _, err := f.WriteAt(part, copyAt+at); err != nil {
			return err
		}
	}
	return nil
}

var errNotASegment = errors.New("not a segment")

// decodeHead reads the head at the beginning of b. errNotASegment means that it
// never was one; any other error that it was and is damaged, or of another
// format. intact is false when one of the two copies could not be read.
func decodeHead(b []byte) (h *head, intact bool, err error) {
	if len(b) < headSize {
		if bytes.HasPrefix(b, magic[:]) {
			return nil, false, fmt.Errorf("head cut short at %d bytes", len(b))
		}
		return nil, false, errNotASegment
	}
	h, err = decodeWho(b)
	mirror, mirrorErr := decodeWho(b[mirrorAt:])
	intact = err == nil && mirrorErr == nil
	if errors.Is(err, ErrFormat) && errors.Is(mirrorErr, ErrFormat) {
		return nil, false, err
	}
	if err != nil {
		h = mirror
	}
	if h == nil {
		return nil, false, errors.Join(err, mirrorErr)
	}
	inputs := int64(len(h.inputs))
	if inputs*int64(len(uuid{})) > int64(len(b)-headSize) || int64(len(b)) < h.size() {
		return nil, false, errors.New("input list cut short")
	}
	list := b[headSize:][:h.inputsSize()]
	if checksum(h.uuid, list) != h.inputsSum {
		list, intact = b[headSize+h.inputsSize():][:h.inputsSize()], false
		if checksum(h.uuid, list) != h.inputsSum {
			return nil, false, errors.New("input list damaged")
		}
	}
	for i := range h.inputs {
		copy(h.inputs[i][:], list[i*len(uuid{}):])
	}
	for _, at := range [...]int{0, mirrorAt} {
		if part := b[at+openedAt:][:sectorSize]; h.end == 0 && sectorIntact(h.uuid, part) {
			h.start = int64(order.Uint64(part[8:]))
		}
		if part := b[at+closedAt:][:sectorSize]; sectorIntact(h.uuid, part) {
			h.start, h.end = int64(order.Uint64(part[8:])), int64(order.Uint64(part[16:]))
			h.blocks, h.jumped, h.slots = order.Uint32(part[24:]), part[28] == 1, order.Uint32(part[32:])
		}
	}
	return h, intact, nil
}

func sectorIntact(u uuid, sector []byte) bool {
	return order.Uint32(sector[sectorSize-4:]) == checksum(u, sector[:sectorSize-4])
}

func decodeWho(b []byte) (*head, error) {
	if !bytes.HasPrefix(b, magic[:]) {
		return nil, errNotASegment
	}
	h := &head{merged: b[12] == 1}
	copy(h.uuid[:], b[16:])
	if order.Uint32(b[whoSize-4:]) != checksum(h.uuid, b[:whoSize-4]) {
		return nil, errors.New("head checksum wrong")
	}
	if v := order.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("%w: a segment has format %d, this program writes and reads %d", ErrFormat, v, formatVersion)
	}
	h.generation = order.Uint32(b[32:])
	h.identity = disk.Identity{Inode: order.Uint64(b[40:]), Birth: int64(order.Uint64(b[48:]))}
	h.inputsSum = order.Uint32(b[60:])
	routes, inputs := int(b[64]), order.Uint32(b[56:])
	if routes > MaxRoutes || inputs > maxInputs {
		return nil, fmt.Errorf("head has %d routes and %d inputs", routes, inputs)
	}
	h.inputs = make([]uuid, inputs)
	for i := range routes {
		at := b[80+i*64:]
		if at[0] > MaxRouteName {
			return nil, errors.New("head has an oversized route name")
		}
		h.routes = append(h.routes, owed{string(at[1 : 1+at[0]]), [8]byte(at[56:64])})
	}
	return h, nil
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

	wordSealed = 1 << 63
	wordSet    = 1 << 62
	wordCount  = wordSet - 1

	flagRegistered = 1 << 0
	flagStripe     = 1 << 1
)

type shape uint32

func newShape(keyLen int, kind sink.Kind, flags byte) shape {
	return shape(keyLen) | shape(kind)<<16 | shape(flags|flagRegistered)<<24
}
func (s shape) keyLen() int     { return int(s & 0xffff) }
func (s shape) kind() sink.Kind { return sink.Kind(s >> 16) }
func (s shape) stripe() bool    { return s>>24&flagStripe != 0 }

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
	copy(b[blockSize:], key)
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
			i += blocksFor(len(s.key))
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
	if s.shape == 0 || s.shape.kind() > sink.Last || len(b) < int(blocksFor(s.shape.keyLen()))*blockSize {
		return s, false
	}
	if s.shape.stripe() {
		s.primary = order.Uint32(b[slotPrimary:])
	}
	s.key = b[blockSize : blockSize+s.shape.keyLen()]
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
