package ledger

import "bytes"

// A frame is one record of an append-only file: a header with length, checksum
// and kind, then the payload. Readers find the next intact frame behind a damaged
// one.
const (
	frameHeader = 16
	maxFrame    = 16 << 20
)

var frameMagic = []byte{0xf7, 'M', 'F', 0x1e}

type frameKind byte

func appendFrame(b []byte, u uuid, kind frameKind, payload []byte) []byte {
	var h [frameHeader]byte
	copy(h[:], frameMagic)
	order.PutUint32(h[4:], uint32(len(payload)))
	h[12] = byte(kind)
	order.PutUint32(h[8:], checksum(u, h[4:8], h[12:], payload))
	return append(append(b, h[:]...), payload...)
}

// readFrames calls visit for every intact frame, in order, with the offset at
// which it ends. It returns how many bytes between them belong to none; what
// stands behind the last one is a torn tail.
func readFrames(b []byte, u uuid, visit func(kind frameKind, payload []byte, end int)) (damaged int) {
	end := 0
	at := 0
	for {
		skip := bytes.Index(b[at:], frameMagic)
		if skip < 0 || len(b)-at-skip < frameHeader {
			return damaged
		}
		at += skip
		h := b[at:]
		n := int(order.Uint32(h[4:]))
		if n > maxFrame || n > len(h)-frameHeader || order.Uint32(h[8:]) != checksum(u, h[4:8], h[12:frameHeader], h[frameHeader:frameHeader+n]) {
			at++
			continue
		}
		damaged += at - end
		at += frameHeader + n
		end = at
		visit(frameKind(h[12]), h[frameHeader:frameHeader+n], end)
	}
}
