package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/inprocess/meter/internal/disk"
)

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
	instance   uint8 // which of several processes counted it
	start      int64 // seconds; 0: never opened
	end        int64 // seconds; 0: never closed
	blocks     uint32
	slots      uint32 // intact slots at sealing, stripes and unset ones included
	jumped     bool   // the wall clock jumped while it was open
	afterEnd   bool   // its window began where a bill ended
	atEnd      bool   // its window ended where a bill does
	dated      bool   // some of its records have a time of their own, before its window
	last       int64  // second by which all was counted, if that may be after its end; 0: it is not
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
	b[13] = h.instance
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
	if h.afterEnd {
		b[16] = 1
	}
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
	if h.atEnd {
		b[29] = 1
	}
	if h.afterEnd {
		b[30] = 1
	}
	if h.dated {
		b[31] = 1
	}
	order.PutUint32(b[32:], h.slots)
	order.PutUint64(b[40:], uint64(h.last))
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
			h.start, h.afterEnd = int64(order.Uint64(part[8:])), part[16] == 1
		}
		if part := b[at+closedAt:][:sectorSize]; sectorIntact(h.uuid, part) {
			h.start, h.end = int64(order.Uint64(part[8:])), int64(order.Uint64(part[16:]))
			h.blocks, h.slots = order.Uint32(part[24:]), order.Uint32(part[32:])
			h.jumped, h.atEnd, h.afterEnd, h.dated = part[28] == 1, part[29] == 1, part[30] == 1, part[31] == 1
			h.last = int64(order.Uint64(part[40:]))
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
	h := &head{merged: b[12] == 1, instance: b[13]}
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
