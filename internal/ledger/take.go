package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/inprocess/meter/sink"
)

// lane is one route's side of delivery.
type lane struct {
	mu    sync.Mutex       // held while records are chosen and marked, merged or decided about
	busy  map[pair]bool    // of unresolved batches
	lasts map[string]int64 // by series of kind Last: when the newest window began of which a record was attempted
	ready chan struct{}    // capacity 1
}

// pair is what no two deliveries may overlap for.
type pair struct{ feature, subject string }

// attempted notes that a record of a Last series, of a window that began then, was
// attempted. The caller holds mu, or is the only one who knows the lane.
func (ln *lane) attempted(key string, start int64) {
	ln.lasts[key] = max(ln.lasts[key], start)
}

// Batch is some records of one route, marked as attempted.
type Batch struct {
	Records []sink.Record

	ledger *Ledger
	route  int
	items  []item
	pairs  map[pair]bool
}

// item is where one of a batch's records stands.
type item struct {
	sd      *sealed
	block   uint32
	doubted bool // an earlier attempt may have been applied
}

// Result answers for one record of a batch.
type Result struct {
	Outcome   sink.Outcome // of this attempt alone: Delivered, Rejected, Pending (surely not applied) or InDoubt
	NotBefore time.Time    // earliest next try; zero: any time
	Reason    string       // for the quarantine and Health; no secrets
	Postponed bool         // Pending for a reason of the record's own
}

// Take marks up to most open records of a route as attempted, durably, and
// returns them, oldest window first; nil when none can be sent now. Records
// whose feature hold reports true stay pending. Records of a (subject, feature)
// that is part of an unresolved batch of this route are left out, so that two
// deliveries never overlap for it.
func (l *Ledger) Take(route, most int, hold func(sink.Feature) bool) (*Batch, error) {
	if l.closed.Load() {
		return nil, ErrClosed
	}
	b := &Batch{ledger: l, route: route, pairs: make(map[pair]bool)}
	failed, err := b.fill(most, hold)
	if len(b.items) == 0 {
		return nil, failed
	}
	if err != nil {
		b.undo()
		return nil, errors.Join(failed, err)
	}
	return b, nil
}

// fill chooses records and marks them. A merge must not come between: what it finds
// attempted, the disk has to know as attempted, too. Segments that can't be read
// fail alone; err says that nothing may be sent.
func (b *Batch) fill(most int, hold func(sink.Feature) bool) (failed, err error) {
	ln := &b.ledger.lanes[b.route]
	ln.mu.Lock()
	defer ln.mu.Unlock()
	for _, sd := range b.ledger.sealedNow() {
		if len(b.items) >= most {
			break
		}
		if err := sd.take(b, most, hold, ln); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed, b.mark()
}

// take adds this segment's records to b. The lane's lock is held.
func (sd *sealed) take(b *Batch, most int, hold func(sink.Feature) bool, ln *lane) error {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	route := b.route
	if sd.open[route] == 0 || sd.paused {
		return nil
	}
	wasLoaded, before := sd.img != nil, len(b.items)
	img, err := sd.load()
	if err != nil {
		err = fmt.Errorf("meter: sealed counts can't be read: %w", err)
		sd.ledger.health.set("segment "+sd.head.uuid.String(), err)
		return err
	}
	l, r := sd.ledger, &sd.ledger.routes[route]
	now, highWater := time.Now(), l.highWaterTime()
	quarantined := make(map[uint32]holding)
	var obsolete []uint32 // levels older than one that was attempted
	defer func() {
		if len(b.items) == before && !wasLoaded {
			sd.unload()
		}
	}()
	entry, first := sd.entry[route], true
	for i := sd.cursor[route]; i < len(img.slots) && len(b.items) < most; i++ {
		block := img.slots[i]
		o := sd.outcomes(block)
		s := o.states[entry]
		if !s.sendable() {
			if first && s != attempted {
				sd.cursor[route] = i + 1
			}
			continue
		}
		first = false
		rec, err := sd.record(block, entry, 0)
		if err != nil {
			return err
		}
		p := pair{rec.Feature, rec.Subject}
		if ln.busy[p] && !b.pairs[p] {
			continue
		}
		if rec.Kind == sink.Last && ln.lasts[string(img.key(block))] > sd.head.start {
			obsolete = append(obsolete, block)
			continue
		}
		if why := sd.unsendable(r, block, s, o.first[entry], now, highWater); why != nil {
			quarantined[block] = *why
			continue
		}
		try := sd.tries[retryKey{block, route}]
		if now.Before(try.notBefore) {
			continue
		}
		if hold != nil && hold(sink.Feature{Name: rec.Feature, Kind: rec.Kind}) {
			continue
		}
		rec.Attempt, rec.Doubt = try.attempts+1, s == inDoubt
		if s == inDoubt || o.first[entry] != 0 {
			rec.Attempt = max(rec.Attempt, 2) // of an earlier process, or before an operator's decision
		}
		if rec.Kind == sink.Last {
			if b.pairs[p] {
				continue // an older one is in this batch: its outcome comes first
			}
			if err := l.supersede(route, sd, img.key(block)); err != nil {
				return err
			}
			ln.attempted(string(img.key(block)), sd.head.start)
		}
		ln.busy[p], b.pairs[p] = true, true
		b.items = append(b.items, item{sd, block, s == inDoubt})
		b.Records = append(b.Records, rec)
		sd.flying++
		sd.set(block, func(o *outcomes) {
			o.states[entry] = attempted
			if s != inDoubt {
				o.first[entry] = uint32(now.Unix())
			}
		})
	}
	for _, block := range obsolete {
		sd.set(block, func(o *outcomes) { o.states[entry] = superseded })
	}
	if err := sd.persist(obsolete, len(obsolete) > 0); err != nil {
		return err
	}
	return l.hold(sd, route, quarantined)
}

// unsendable says why a record must go to quarantine instead of to the sink.
func (sd *sealed) unsendable(r *Route, block uint32, s state, first uint32, now, highWater time.Time) *holding {
	switch {
	case s == inDoubt && !mayResend(r, first, now, highWater):
		why := "an attempt may have been applied, and sending it again could bill twice"
		if first == unknownTime {
			why = "the file is a copy or was damaged: whether it was sent is unknown"
		}
		return &holding{doubtHeld, why}
	case s == pending && r.MaxAge > 0 && now.Sub(time.Unix(sd.when(block).used, 0)) > r.MaxAge:
		return &holding{pendingHeld, fmt.Sprintf("older than the %v that the sink takes", r.MaxAge)}
	case s == pending && r.MaxQuantity > 0 && sd.img.quantity(block) > r.MaxQuantity:
		return &holding{pendingHeld, fmt.Sprintf("more than the %d that the sink takes in one record", r.MaxQuantity)}
	}
	return nil
}

// supersede writes off the older open records of a Last series before a newer
// one is attempted, durably: sent after it they would bring the old level back.
func (l *Ledger) supersede(route int, newer *sealed, key []byte) error {
	for _, sd := range l.sealedNow() {
		if sd == newer || sd.head.start >= newer.head.start {
			break
		}
		if err := sd.supersede(route, key); err != nil {
			return err
		}
	}
	return nil
}

func (sd *sealed) supersede(route int, key []byte) error {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if sd.last[route] == 0 {
		return nil
	}
	img, err := sd.load()
	if err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	entry := sd.entry[route]
	for _, block := range img.slots {
		if img.shape(block).kind() != sink.Last || !bytes.Equal(img.key(block), key) {
			continue
		}
		if s := sd.outcomes(block).states[entry]; s.sendable() || s.held() || s == undecided {
			delete(sd.tries, retryKey{block, route})
			sd.set(block, func(o *outcomes) { o.states[entry] = superseded })
			return sd.persist([]uint32{block}, true)
		}
	}
	return nil
}

// mark makes the batch's attempted states durable. If that fails nothing may be
// sent.
func (b *Batch) mark() error {
	for sd, blocks := range b.bySegment() {
		sd.mu.Lock()
		err := sd.persist(blocks, true)
		sd.mu.Unlock()
		if err != nil {
			return fmt.Errorf("meter: attempt not recorded, so not made: %w", err)
		}
	}
	return nil
}

// undo takes the marks of a batch that was never sent back.
func (b *Batch) undo() {
	results := make([]Result, len(b.items))
	for i := range results {
		results[i].Outcome = sink.Pending
	}
	_ = b.Resolve(results) // what can't be written now is in doubt after a crash, as it should be
}

func (b *Batch) bySegment() map[*sealed][]uint32 {
	m := make(map[*sealed][]uint32)
	for _, it := range b.items {
		m[it.sd] = append(m[it.sd], it.block)
	}
	return m
}

// Resolve records what became of an attempt, one result per record, exactly once.
func (b *Batch) Resolve(results []Result) error {
	if len(results) != len(b.items) {
		return fmt.Errorf("meter: %d results for %d records", len(results), len(b.items))
	}
	l := b.ledger
	var failed error
	for sd := range b.bySegment() {
		failed = errors.Join(failed, sd.resolve(b, results))
	}
	ln := &l.lanes[b.route]
	ln.mu.Lock()
	for p := range b.pairs {
		delete(ln.busy, p)
	}
	ln.mu.Unlock()
	nudge(ln.ready)
	return failed
}

func (sd *sealed) resolve(b *Batch, results []Result) error {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	l, route := sd.ledger, b.route
	r, entry := &l.routes[route], sd.entry[route]
	now, highWater := time.Now(), l.highWaterTime()
	quarantined := make(map[uint32]holding)
	var blocks []uint32
	for i, it := range b.items {
		if it.sd != sd {
			continue
		}
		sd.flying--
		to := afterAttempt(results[i].Outcome, it.doubted)
		k := retryKey{it.block, route}
		if to.sendable() {
			if sd.tries == nil {
				sd.tries = make(map[retryKey]retry)
			}
			try := retry{attempts: sd.tries[k].attempts + 1, notBefore: results[i].NotBefore}
			if results[i].Postponed {
				try.postponed, try.subject = results[i].Reason, b.Records[i].Subject
			}
			sd.tries[k] = try
		} else {
			delete(sd.tries, k)
		}
		if to == inDoubt && !mayResend(r, sd.outcomes(it.block).first[entry], now, highWater) {
			to = doubtHeld
		}
		if to.held() {
			quarantined[it.block] = holding{to, results[i].Reason}
			if to == rejectedHeld || to == doubtHeld {
				// Until the paper is written the slot says what is surely true.
				to = inDoubt
			}
		}
		if to == delivered && r.Confirm > 0 {
			sd.confirm = now.Add(r.Confirm)
		}
		sd.set(it.block, func(o *outcomes) { o.states[entry] = to })
		blocks = append(blocks, it.block)
	}
	err := sd.persist(blocks, l.syncAlways)
	err = errors.Join(err, l.hold(sd, route, quarantined))
	if sd.unsettled == 0 && sd.flush() == nil {
		sd.unload()
	}
	return err
}

// Ready is signaled when records of a route may have become open.
func (l *Ledger) Ready(route int) <-chan struct{} { return l.lanes[route].ready }

// NextTry is the earliest time to come at which a record that failed an attempt
// wants to be tried again; zero when none waits for a time.
func (l *Ledger) NextTry(route int) (earliest time.Time) {
	now := time.Now()
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		for k, try := range sd.tries {
			if k.route == route && try.notBefore.After(now) && (earliest.IsZero() || try.notBefore.Before(earliest)) {
				earliest = try.notBefore
			}
		}
		sd.mu.Unlock()
	}
	return earliest
}

// Postponed counts the records of a route that wait for a time to come because of
// what they are, such as nobody's.
func (l *Ledger) Postponed(route int) (n int) {
	now := time.Now()
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		for k, try := range sd.tries {
			if k.route == route && try.postponed != "" && try.notBefore.After(now) {
				n++
			}
		}
		sd.mu.Unlock()
	}
	return n
}

// postponed says, by route, how many records wait because of what they are, and whose
// one of them is and why it does.
func (l *Ledger) postponed() (errs []error) {
	type group struct {
		n       int
		example retry
	}
	groups := make([]group, len(l.routes))
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		for k, try := range sd.tries {
			if try.postponed == "" {
				continue
			}
			g := &groups[k.route]
			if g.n++; g.n == 1 || try.postponed < g.example.postponed {
				g.example = try
			}
		}
		sd.mu.Unlock()
	}
	for i, g := range groups {
		if g.n > 0 {
			errs = append(errs, fmt.Errorf("meter: route %q: %s postponed, and can be settled as voided, rejected or delivered meanwhile; one of them, of subject %q: %s",
				l.routes[i].Name, count(g.n, "record is", "records are"), g.example.subject, g.example.postponed))
		}
	}
	return errs
}

// OpenRecords counts the records of a route that are to be sent or being sent,
// and their quantity.
func (l *Ledger) OpenRecords(route int) (records int, quantity int64) {
	l.mu.Lock() // a merge moves records from some segments to another
	defer l.mu.Unlock()
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		if entry := sd.entry[route]; entry >= 0 {
			records += sd.open[route]
			for _, t := range sd.tallies {
				quantity += t[entry][pending] + t[entry][inDoubt] + t[entry][attempted]
			}
		}
		sd.mu.Unlock()
	}
	return records, quantity
}
