package ledger

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// sealed is a segment whose counts are final. Its records wait for delivery; all
// that changes is their outcomes, in place, through ordinary writes.
type sealed struct {
	ledger *Ledger
	head   head
	table  [MaxRoutes]int // the ledger's route for each entry of head.routes; -1: not configured
	entry  [MaxRoutes]int // and back; -1: nothing is owed to that route
	merged int            // table entry a merged segment is owed to, else -1

	mu        sync.Mutex
	store     *store // whose directory the file is in
	path      string // "": in memory only
	file      *os.File
	syncs     rounds[struct{}]
	copied    bool   // its file was a copy when it was opened
	folded    bool   // its totals are being written: nothing of it may be saved any more
	paused    bool   // not on disk yet, and a crash would bring it back as never sent: nothing is sent
	released  bool   // the ledger is closed: the file is not ours any more
	dirty     bool   // outcomes written and not yet synced
	ahead     bool   // the image has outcomes that could not be written: it is all that knows them
	syncing   int    // syncs that need the file while they do not hold mu
	writes    int    // counts up, so that a sync knows what it covers
	img       *image // nil: read again when needed
	tallies   map[string]*tally
	open      [MaxRoutes]int     // sendable or being sent, by the ledger's route
	flying    int                // records in unresolved batches
	pins      int                // callers that need the image while they do not hold mu
	confirm   time.Time          // until then a biller may take a delivered record back
	unsettled int                // (record, route) pairs that something may still happen to
	held      int                // those of them in quarantine
	events    int                // that it remembers
	last      [MaxRoutes]int     // unsettled records of kind Last
	unsent    [MaxRoutes]int     // those of open that were never attempted and are Sums
	cursor    [MaxRoutes]int     // no sendable record stands before it in img.slots
	tries     map[retryKey]retry // of records that failed an attempt
}

type retryKey struct {
	block uint32
	route int
}

type retry struct {
	attempts  int
	notBefore time.Time
	postponed string // why the record waits because of what it is; "": it doesn't
	subject   string // of such a record
}

// tally sums a feature's quantities by table entry and state.
type tally [MaxRoutes + 1][stateCodes]int64

// nobody is the tally's entry of records that no route takes.
const nobody = MaxRoutes

// image is a sealed segment's blocks in memory.
type image struct {
	blocks []byte
	slots  []uint32          // blocks of the records' slots, in order
	intact uint32            // slots found, stripes and unset ones included
	events int               // those of them that are events'
	dated  bool              // some of the records have a time of their own
	extra  map[uint32]uint64 // what stripes add to their primary's count
	bad    map[uint32]bool   // slots whose count can't be trusted
}

func (img *image) bytes(block uint32) []byte { return img.blocks[int(block)*blockSize:] }
func (img *image) shape(block uint32) shape  { return shape(order.Uint32(img.bytes(block)[slotShape:])) }
func (img *image) key(block uint32) []byte {
	return img.bytes(block)[blockSize : blockSize+img.shape(block).keyLen()]
}
func (img *image) quantity(block uint32) int64 {
	if img.bad[block] {
		return int64(min(order.Uint64(img.bytes(block))&wordCount, MaxQuantity))
	}
	return int64(order.Uint64(img.bytes(block))&wordCount + img.extra[block])
}

// damage is what a scan could not read.
type damage struct {
	blocks  uint32 // neither slot nor empty
	counts  int    // slots with a readable key and an unreadable count
	missing int    // slots that were there at sealing and are not
}

func (d damage) any() bool { return d != damage{} }

// newImage scans a segment's blocks. Unset slots yield no record.
func newImage(blocks []byte, u uuid, isSealed bool) (*image, damage) {
	img := &image{blocks: blocks}
	var d damage
	set := make(map[uint32]bool) // primaries that only their stripes have set
	var unset []uint32
	scan(blocks, u, isSealed, func(s slot) {
		img.intact++
		count := s.word & wordCount
		switch {
		case s.shape.stripe():
			if s.shape.event() {
				img.events++
			}
			if s.badWord {
				d.counts++
			} else if s.word&wordSet != 0 {
				if img.extra == nil {
					img.extra = make(map[uint32]uint64)
				}
				img.extra[s.primary] += count
				set[s.primary] = true
			}
			return
		case s.badWord:
			d.counts++
			if img.bad == nil {
				img.bad = make(map[uint32]bool)
			}
			img.bad[s.block] = true
		case s.word&wordSet == 0:
			unset = append(unset, s.block)
			return
		}
		img.slots = append(img.slots, s.block)
	}, func(_, n uint32) { d.blocks += n })
	for _, block := range unset {
		if set[block] {
			img.slots = append(img.slots, block)
		}
	}
	slices.Sort(img.slots)
	img.dated = slices.ContainsFunc(img.slots, func(block uint32) bool { _, ok := usedIn(img.key(block)); return ok })
	return img, d
}

// missing is how many slots of a sealed segment can't be found any more.
func (h *head) missing(img *image) int {
	if h.end == 0 {
		return 0
	}
	return max(0, int(h.slots)-int(img.intact))
}

func newSealed(l *Ledger, h head, path string) *sealed {
	sd := &sealed{ledger: l, store: l.store, head: h, path: path, merged: -1}
	for i := range MaxRoutes {
		sd.table[i], sd.entry[i] = -1, -1
	}
	for i, o := range h.routes {
		for r := range l.routes {
			if l.routes[r].Name == o.name && destinationOf(l.routes[r].Address) == o.destination {
				sd.table[i], sd.entry[r] = r, i
			}
		}
	}
	return sd
}

// load returns the image, reading the file if need be. The caller holds mu.
func (sd *sealed) load() (*image, error) {
	if sd.img != nil {
		return sd.img, nil
	}
	data, err := os.ReadFile(sd.path)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) < sd.head.size() {
		return nil, fmt.Errorf("%s: cut short to %d bytes", sd.path, len(data))
	}
	img, d := newImage(data[sd.head.size():], sd.head.uuid, true)
	d.missing = sd.head.missing(img)
	if d.any() && sd.tallies != nil {
		sd.ledger.reportDamage(sd.path, d)
	}
	sd.img = img
	for block := range img.bad {
		sd.decideRoutes(block)
	}
	sd.setImage(img)
	return img, nil
}

// setImage takes img over and counts it anew. The caller holds mu.
func (sd *sealed) setImage(img *image) {
	sd.img = img
	sd.recount()
}

// recount derives everything that is known about the image from its slots.
func (sd *sealed) recount() {
	sd.tallies = make(map[string]*tally)
	sd.open, sd.last, sd.cursor = [MaxRoutes]int{}, [MaxRoutes]int{}, [MaxRoutes]int{}
	sd.unsent, sd.unsettled, sd.held, sd.events = [MaxRoutes]int{}, 0, 0, sd.img.events
	for _, block := range sd.img.slots {
		o, _ := getOutcomes(sd.img.bytes(block), sd.head.uuid)
		t := sd.tally(block)
		for i := range sd.head.routes {
			t[i][o.states[i]] += sd.img.quantity(block)
			sd.countOpen(i, block, o, 1)
		}
		if sd.isNobodys(o) {
			t[nobody][undecided] += sd.img.quantity(block)
		}
	}
}

// isNobodys reports whether every route's Match said no.
func (sd *sealed) isNobodys(o outcomes) bool {
	for i := range sd.head.routes {
		if o.states[i] != unowed {
			return false
		}
	}
	return true
}

// eachTerm calls visit for every part of the segment's quantities.
func (sd *sealed) eachTerm(visit func(feature, route string, s state, quantity int64)) {
	for feature, t := range sd.tallies {
		for i := range t {
			route := ""
			if i < len(sd.head.routes) {
				route = sd.head.routes[i].name
			}
			for s, quantity := range t[i] {
				if quantity != 0 && state(s) != moved && state(s) != unowed {
					visit(feature, route, state(s), quantity)
				}
			}
		}
	}
}

func (sd *sealed) tally(block uint32) *tally {
	key := sd.img.key(block)
	n := int(key[0]) // names are shorter than one varint byte can say
	name := key[1 : 1+n]
	t := sd.tallies[string(name)]
	if t == nil {
		t = new(tally)
		sd.tallies[string(name)] = t
	}
	return t
}

func (sd *sealed) countOpen(entry int, block uint32, o outcomes, n int) {
	s := o.states[entry]
	if !s.settled() {
		sd.unsettled += n
	}
	if s.held() {
		sd.held += n
	}
	r := sd.table[entry]
	if r < 0 {
		return
	}
	if !s.settled() && sd.img.shape(block).kind() == sink.Last {
		sd.last[r] += n
	}
	if !s.sendable() && s != attempted {
		return
	}
	sd.open[r] += n
	if sd.fresh(block, o, entry) {
		sd.unsent[r] += n
	}
}

// fresh reports whether a record was never attempted and may still become part
// of a merged one.
func (sd *sealed) fresh(block uint32, o outcomes, entry int) bool {
	return o.states[entry] == pending && o.first[entry] == 0 && sd.img.shape(block).kind() == sink.Sum
}

// unload frees the image. The caller holds mu.
func (sd *sealed) unload() {
	sd.closeFile()
	if sd.path == "" || sd.flying > 0 || sd.pins > 0 || sd.dirty || sd.ahead {
		return
	}
	sd.img = nil
	sd.cursor = [MaxRoutes]int{}
}

// closeFile gives the file's descriptor back. The caller holds mu.
func (sd *sealed) closeFile() {
	if sd.file != nil && sd.syncing == 0 && !sd.dirty {
		sd.file.Close()
		sd.file = nil
	}
}

func (sd *sealed) outcomes(block uint32) outcomes {
	o, _ := getOutcomes(sd.img.bytes(block), sd.head.uuid)
	return o
}

// set changes a record's outcomes in memory and moves its quantity between the
// terms of the books. The caller holds mu and persists afterwards.
func (sd *sealed) set(block uint32, change func(o *outcomes)) {
	o := sd.outcomes(block)
	before := o
	change(&o)
	o.put(sd.img.bytes(block), sd.head.uuid)
	t, quantity := sd.tally(block), sd.img.quantity(block)
	for i := range sd.head.routes {
		if before.states[i] != o.states[i] {
			t[i][before.states[i]] -= quantity
			t[i][o.states[i]] += quantity
			sd.countOpen(i, block, before, -1)
			sd.countOpen(i, block, o, 1)
		}
		if r := sd.table[i]; r >= 0 && o.states[i].sendable() {
			if at, _ := slices.BinarySearch(sd.img.slots, block); at < sd.cursor[r] {
				sd.cursor[r] = at
			}
		}
	}
}

// write brings the slots at these blocks to the file, without syncing. The
// caller holds mu.
func (sd *sealed) write(blocks []uint32) error {
	if sd.path == "" || len(blocks) == 0 {
		return nil
	}
	if sd.file == nil {
		f, err := disk.OpenFile(sd.path, os.O_RDWR)
		if err != nil {
			return err
		}
		sd.file = f
	}
	slices.Sort(blocks)
	for len(blocks) > 0 {
		// Slots that lie close together go in one write: the blocks between them
		// are rewritten as they are.
		n := 1
		for n < len(blocks) && blocks[n]-blocks[n-1] <= 16 {
			n++
		}
		from, to := int(blocks[0])*blockSize, int(blocks[n-1]+1)*blockSize
		if _, err := sd.file.WriteAt(sd.img.blocks[from:to], sd.head.size()+int64(from)); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	sd.dirty = true
	sd.writes++
	return nil
}

// persist writes the slots and, if durable, waits until they are safe from power
// loss. A file that fails is never trusted again: the image goes to a new one. If
// that fails, too, the image stays in memory, ahead of the file, and every later
// call tries again.
func (sd *sealed) persist(blocks []uint32, durable bool) error {
	if sd.path == "" {
		return nil
	}
	if sd.released {
		return ErrClosed
	}
	if sd.ahead {
		return sd.rewrite(errAhead)
	}
	err := sd.store.before("write outcomes")
	if err == nil {
		err = sd.write(blocks)
	}
	if err == nil && durable && sd.dirty {
		f, written := sd.file, sd.writes
		sd.pins++
		sd.syncing++
		sd.mu.Unlock()
		err = sd.syncs.join(struct{}{}, func([]struct{}) error { return disk.Sync(f) })
		sd.mu.Lock()
		sd.pins--
		sd.syncing--
		if err == nil && sd.writes == written {
			sd.dirty = false
		}
	}
	if err == nil {
		return nil
	}
	if sd.released {
		return ErrClosed // the directory may be another process's by now
	}
	return sd.rewrite(err)
}

var errAhead = errors.New("earlier outcomes could not be written")

// rewrite copies the image to a new file of a higher generation, because the old
// one failed with cause. The caller holds mu.
func (sd *sealed) rewrite(cause error) error {
	if _, err := sd.load(); err != nil {
		return errors.Join(cause, err)
	}
	sd.ahead = true
	h := sd.head
	h.generation++
	path, err := sd.store.replaceSegment(&h, sd.img.blocks)
	if err != nil {
		err = errors.Join(cause, err)
		sd.ledger.health.set("segment "+sd.head.uuid.String(), fmt.Errorf("can't write outcomes: %w", err))
		return err
	}
	old := sd.path
	if sd.file != nil {
		sd.file.Close()
		sd.file = nil
	}
	sd.head.generation, sd.head.identity = h.generation, h.identity // the rest is read without the lock
	sd.path, sd.dirty, sd.ahead = path, false, false
	sd.store.remove(old)
	sd.ledger.health.clear("segment " + sd.head.uuid.String())
	sd.ledger.log.Warn("meter: segment rewritten after a failed write", "old", old, "new", path, "error", cause)
	return nil
}

// flush makes outcomes durable that were written without waiting. The caller
// holds mu.
func (sd *sealed) flush() error {
	if !sd.dirty && !sd.ahead {
		return nil
	}
	return sd.persist(nil, true)
}

// waits reports whether nothing of it is sent until it is on disk.
func (sd *sealed) waits() bool {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	return sd.paused
}

// settled reports whether nothing will ever happen to any record any more.
func (sd *sealed) settled() bool {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	return sd.unsettled == 0
}

// record renders the record at block for the route of a table entry; below 0: for
// any. The caller holds mu.
func (sd *sealed) record(block uint32, entry, attempt int) (sink.Record, error) {
	feature, subject, dimensions, err := decodeKey(sd.img.key(block))
	if err != nil {
		return sink.Record{}, err
	}
	used, dated := usedIn(sd.img.key(block))
	if !dated {
		used = interval{sd.head.start, sd.head.end}
	}
	return sink.Record{
		ID:         sd.recordID(block, entry),
		Feature:    feature,
		Subject:    subject,
		Dimensions: dimensions,
		Kind:       sd.img.shape(block).kind(),
		Quantity:   sd.img.quantity(block),
		Start:      time.Unix(used.start, 0).UTC(),
		End:        time.Unix(used.end, 0).UTC(),
		Backdated:  dated,
		Attempt:    attempt,
		Instance:   int(sd.head.instance),
	}, nil
}

func (sd *sealed) recordID(block uint32, entry int) string {
	issue := byte(0)
	if entry >= 0 {
		issue = sd.outcomes(block).issues[entry]
	}
	return recordID(sd.head.uuid, block, sd.img.key(block), issue)
}
