package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// totals is what stays of segments that are gone: how much every series used in
// which month, and what became of it on each route. It is an append-only file of
// frames. A frame names the segment it stands for and is synced before that
// segment is deleted, so that after any crash a segment either still counts
// itself or is found here, never both.
type totals struct {
	store     *store // nil: in memory
	file      *os.File
	end       int64
	compacted int64         // size after the last compaction
	folded    map[uuid]bool // segments whose files may still be there
	books     map[account]int64
	highWater int64  // newest second that any folded segment knew of
	tail      []byte // behind the last intact frame, when it was opened
}

// account is one term of the books.
type account struct {
	feature, route string // route "": nobody was to be billed
	state          state
}

// usage is what one series used in one month.
type usage struct {
	month    int32
	kind     sink.Kind
	at       int64 // end of the latest window in it, which decides a Last
	quantity int64
}

type usageKey struct {
	key   string
	month int32
	kind  sink.Kind
}

// fold is a frame: one segment, or after compaction many.
type fold struct {
	segment   uuid // zero: many
	highWater int64
	usages    map[usageKey]usage
	periods   map[periodKey]period
	books     map[account]int64
}

const (
	frameFold      frameKind = 3
	frameFoldMore  frameKind = 4 // continues in the next frame
	compactTotals            = 8 << 20
	foldFrameBytes           = 4 << 20
)

func newFold(segment uuid) *fold {
	return &fold{segment: segment, usages: make(map[usageKey]usage), periods: make(map[periodKey]period), books: make(map[account]int64)}
}

func (f *fold) addUsage(k usageKey, at, quantity int64) {
	u, known := f.usages[k]
	switch {
	case !known:
		u = usage{k.month, k.kind, at, quantity}
	case k.kind == sink.Last && at < u.at:
	default:
		u.quantity, u.at = combine(k.kind, u.quantity, quantity), max(u.at, at)
	}
	f.usages[k] = u
}

// encode renders the fold as frames; all but the last say that more follows.
func (f *fold) encode() []byte {
	var out []byte
	b := f.preamble(nil)
	emit := func(last bool) {
		kind := frameFoldMore
		if last {
			kind = frameFold
		}
		out = appendFrame(out, uuid{}, kind, b)
		b = f.preamble(b[:0])
	}
	for a, quantity := range f.books {
		if quantity == 0 {
			continue
		}
		b = append(b, 'b', byte(a.state))
		b = appendText(b, a.feature)
		b = appendText(b, a.route)
		b = binary.AppendVarint(b, quantity)
		if len(b) > foldFrameBytes {
			emit(false)
		}
	}
	for k, u := range f.usages {
		b = append(b, 'u', byte(k.kind))
		b = appendText(b, k.key)
		b = binary.AppendVarint(b, int64(k.month))
		b = binary.AppendVarint(b, u.at)
		b = binary.AppendVarint(b, u.quantity)
		if len(b) > foldFrameBytes {
			emit(false)
		}
	}
	for k, p := range f.periods {
		b = appendPeriod(b, k, p)
		if len(b) > foldFrameBytes {
			emit(false)
		}
	}
	emit(true)
	return out
}

func (f *fold) preamble(b []byte) []byte {
	b = append(b, f.segment[:]...)
	return binary.AppendVarint(b, f.highWater)
}

// decodeInto adds one frame's content to f.
func (f *fold) decodeInto(b []byte) error {
	bad := errors.New("totals frame malformed")
	if len(b) < len(uuid{}) {
		return bad
	}
	copy(f.segment[:], b)
	b = b[len(uuid{}):]
	ok := true
	number := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			ok, b = false, nil
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			ok, b = false, nil
			return ""
		}
		s := string(b[used : used+int(n)])
		b = b[used+int(n):]
		return s
	}
	f.highWater = max(f.highWater, number())
	for ok && len(b) >= 2 {
		tag, code := b[0], b[1]
		b = b[2:]
		switch tag {
		case 'b':
			a := account{state: state(code), feature: text(), route: text()}
			if quantity := number(); ok {
				f.books[a] += quantity
			}
		case 'u':
			k := usageKey{kind: sink.Kind(code), key: text(), month: int32(number())}
			at, quantity := number(), number()
			if ok {
				f.addUsage(k, at, quantity)
			}
		case 'p':
			k := periodKey{text(), number(), code != 0}
			p := period{since: k.since, start: number(), end: number(), base: number(), after: number(), counted: number()}
			if ok {
				f.addPeriod(k, p)
			}
		default:
			ok = false
		}
	}
	if !ok || len(b) > 0 {
		return bad
	}
	return nil
}

// openTotals reads the file and hands what was used to visit.
func openTotals(l *Ledger, visit func(*fold)) (*totals, error) {
	t := &totals{store: l.store, folded: make(map[uuid]bool), books: make(map[account]int64)}
	if l.store == nil {
		return t, nil
	}
	path := filepath.Join(l.store.dir, totalsFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("meter: %w", err)
	}
	all, damaged := t.decode(data)
	t.tail = data[t.end:]
	if damaged > 0 {
		l.setAside(path, fmt.Errorf("totals: %d bytes are unreadable", damaged))
	}
	visit(all)
	f, err := disk.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	if err := disk.SyncDir(l.store.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("meter: %w", err), f.Close())
	}
	t.file = f
	return t, nil
}

// closeTail cuts off what stands behind the last intact frame. A torn append is
// no loss: its segments were not deleted, and exists says so of the first one.
func (t *totals) closeTail(l *Ledger, exists func(uuid) bool) error {
	tail := t.tail
	if len(tail) > 0 && (len(tail) < frameHeader+len(uuid{}) || !exists(uuid(tail[frameHeader:][:len(uuid{})]))) {
		l.setAside(t.file.Name(), fmt.Errorf("totals: the last %d bytes are unreadable", len(tail)))
	}
	t.tail = nil
	return t.file.Truncate(t.end)
}

// decode sums up a totals file. A segment that stands there twice counts once.
func (t *totals) decode(data []byte) (all *fold, damaged int) {
	all = newFold(uuid{})
	var open *fold
	unreadable := 0
	damaged = readFrames(data, uuid{}, func(kind frameKind, payload []byte, end int) {
		if kind != frameFold && kind != frameFoldMore {
			return
		}
		if open == nil {
			open = newFold(uuid{})
		}
		if err := open.decodeInto(payload); err != nil {
			unreadable += len(payload)
		}
		if kind == frameFoldMore {
			return
		}
		f := open
		open, t.end = nil, int64(end) // an unfinished fold is a torn tail, too
		if f.segment != (uuid{}) {
			if t.folded[f.segment] {
				return
			}
			t.folded[f.segment] = true
		}
		for k, u := range f.usages {
			all.addUsage(k, u.at, u.quantity)
		}
		for k, p := range f.periods {
			all.addPeriod(k, p)
		}
		for a, quantity := range f.books {
			t.books[a] += quantity
		}
		t.highWater = max(t.highWater, f.highWater)
	})
	return all, damaged + unreadable
}

// write adds folds to the file, durably. On an error it ends where it did before.
func (t *totals) write(folds []*fold) error {
	if t.store == nil {
		return nil
	}
	var b []byte
	for _, f := range folds {
		b = append(b, f.encode()...)
	}
	err := t.store.before("append totals")
	if err == nil {
		_, err = t.file.WriteAt(b, t.end)
	}
	if err == nil {
		err = disk.Sync(t.file)
	}
	if err != nil {
		// What of it reached the disk is unknown: go on in a new file.
		return errors.Join(err, t.rewrite())
	}
	t.end += int64(len(b))
	return nil
}

// apply brings folds into the books.
func (t *totals) apply(folds []*fold) {
	for _, f := range folds {
		t.folded[f.segment] = true
		t.highWater = max(t.highWater, f.highWater)
		for a, quantity := range f.books {
			t.books[a] += quantity
		}
	}
}

// rewrite replaces the file by a copy of its acknowledged part.
func (t *totals) rewrite() error {
	data := make([]byte, t.end)
	if _, err := t.file.ReadAt(data, 0); err != nil {
		return err
	}
	return t.replace(data)
}

// compact replaces the frames of many segments by one, once they have grown
// much. Segments whose files are still there stay named; months before keep, and all
// but the newest period of a subject, are forgotten.
func (t *totals) compact(keep int32) error {
	if t.store == nil || t.end < compactTotals+4*t.compacted {
		return nil
	}
	still, err := t.store.segments()
	if err != nil {
		return err
	}
	data := make([]byte, t.end)
	if _, err := t.file.ReadAt(data, 0); err != nil {
		return err
	}
	fresh := &totals{folded: make(map[uuid]bool), books: make(map[account]int64)}
	all, _ := fresh.decode(data)
	for k := range all.usages {
		if k.month < keep {
			delete(all.usages, k)
		}
	}
	own, ever := all.latest(false), all.latest(true)
	maps.DeleteFunc(all.periods, func(k periodKey, _ period) bool { return k != own[k.key] && k != ever[k.key] })
	all.segment, all.books, all.highWater = uuid{}, fresh.books, fresh.highWater
	b := all.encode()
	for u := range fresh.folded {
		if still[u.String()] {
			b = append(b, newFold(u).encode()...)
		} else {
			delete(t.folded, u)
		}
	}
	if err := t.replace(b); err != nil {
		return err
	}
	t.compacted = t.end
	return nil
}

func (t *totals) replace(data []byte) error {
	if err := t.store.writeFile(totalsFile, data); err != nil {
		return err
	}
	f, err := disk.OpenFile(filepath.Join(t.store.dir, totalsFile), os.O_RDWR)
	if err != nil {
		return err
	}
	t.file.Close()
	t.file, t.end = f, int64(len(data))
	return nil
}

// foldOf sums up a settled segment. The caller holds sd.mu.
func (sd *sealed) foldOf() (*fold, error) {
	img, err := sd.load()
	if err != nil {
		return nil, err
	}
	f := newFold(sd.head.uuid)
	f.highWater = max(sd.head.end, sd.head.start+sd.ledger.spacing) // the next window begins behind it
	sd.eachTerm(func(feature, route string, s state, quantity int64) {
		f.books[account{feature, route, s}] += quantity
	})
	if sd.head.merged {
		return f, nil // its inputs were the ones that were counted
	}
	for _, block := range img.slots {
		if !img.bad[block] {
			k := usageKey{string(undated(img.key(block))), monthOf(sd.when(block).used), img.shape(block).kind()}
			f.addUsage(k, sd.head.end, img.quantity(block))
			sd.addPeriod(f, block)
		}
	}
	return f, nil
}

// addPeriod notes the slot at block in the period of its subject's quota, if that has
// bounds of its own. The caller holds mu.
func (sd *sealed) addPeriod(f *fold, block uint32) {
	if !sd.ledger.periodic.Load() || sd.img.shape(block).kind() != sink.Sum {
		return
	}
	name, _, _, err := decodeKey(sd.img.key(block))
	if err != nil {
		return
	}
	if feature := sd.ledger.featureFromDisk(name, sink.Sum); feature != nil {
		feature.periodsOf(sd.img.key(block), sd.when(block), func(k periodKey, p period) {
			p.counted = sd.img.quantity(block)
			f.addPeriod(k, p)
		})
	}
}
