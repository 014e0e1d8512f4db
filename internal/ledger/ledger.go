// Package ledger counts, and remembers what became of what it counted, so that
// every accepted unit is at every moment pending, delivered, in doubt, rejected,
// voided, superseded or damaged, and never two of these.
//
// Counting happens in the active [segment], one compare-and-swap a count in a
// slot that outlives the process. At the window's end the segment is sealed: its
// slots never change again and each becomes a record for every route that
// matches. Delivery takes records, which marks them as attempted on disk before
// the first byte leaves, and resolves them. When nothing is left to do for a
// segment it is folded into [totals].
//
// The ledger knows routes by name and never sees a sink.
package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter/sink"
)

const (
	SyncAlways time.Duration = -1 // as Sync: before a count is acknowledged
	SyncNever  time.Duration = -2 // as Sync: leave it to the system
	OnFlush    time.Duration = -1 // as Window: rotate only when told

	MaxRoutes   = 8
	MaxQuantity = 1<<53 - 1 // units per record: what JSON carries exactly
)

// Config of a ledger. The caller has checked it.
type Config struct {
	Dir            string // "": in memory only
	Adopt          string // glob of directories to take over from dead processes; "": none
	Routes         []Route
	Window         time.Duration // above 0, or OnFlush
	Sync           time.Duration // above 0, SyncAlways or SyncNever
	Retain         time.Duration // how long settled segments are kept for disputes
	EventWindow    time.Duration // how long an event's ID is remembered; 0: 24 h
	LockWait       time.Duration // how long Open waits for the directory's owner
	MinWindow      time.Duration // windows begin at least this far apart; 0: 1 s
	Instance       uint8         // which of several processes this is; stands in every record
	MaxDisk        int64         // bytes of segment files
	RefuseWhenFull bool          // without room: ErrFull instead of counting in memory
	Logger         *slog.Logger

	neverMap   bool                    // in tests: behave as where mapping files is not safe
	mostBlocks uint32                  // in tests: of a segment; 0: mostBlocks
	step       func(what string) error // in tests: told what is about to happen on disk, and may fail it
}

// Route is a named way out, with what the ledger must know of the sink behind it.
type Route struct {
	Name         string
	Address      string
	Match        func(sink.Record) bool // nil: all. Asked once, at sealing
	DedupeWindow time.Duration
	MaxAge       time.Duration // 0: any
	MaxQuantity  int64         // 0: MaxQuantity
	Timeout      time.Duration // of one attempt
	Confirm      time.Duration // how long after a delivery Reopen finds the record for sure
	Ends         bool          // EndWindowAt is called for it
	Verifies     bool          // Doubts is asked for it
}

var (
	ErrClosed   = errors.New("meter: closed")
	ErrLocked   = errors.New("meter: directory in use")
	ErrFormat   = errors.New("meter: not a directory of this version")
	ErrFull     = errors.New("meter: no room")
	ErrUnsynced = errors.New("meter: counted, but not yet safe from power loss")
	ErrName     = errors.New("meter: bad feature, subject or dimension")
	ErrQuantity = errors.New("meter: bad quantity")
	ErrKind     = errors.New("meter: wrong method for the feature's kind")
	ErrTime     = errors.New("meter: bad event time")
	ErrConflict = errors.New("meter: event ID seen with another quantity or subject")
)

// Ledger counts in one directory, which it owns while it is open, or in memory.
type Ledger struct {
	routes         []Route
	lanes          []lane
	window         time.Duration
	syncPolicy     time.Duration
	syncAlways     bool
	retain         time.Duration
	confirmBytes   int64 // of settled segments that wait for a biller's second thoughts
	spacing        int64 // seconds that windows begin apart, at least
	instance       uint8
	adopt          string
	refuseWhenFull bool
	maxQuantity    int64
	mostBlocks     uint32 // of a segment
	log            *slog.Logger

	store      *store // nil: in memory
	totals     *totals
	periods    *periods // nil: in memory
	quarantine *quarantine
	periodEnds ends
	events     *events
	health     health

	features    map[string]*Feature // guarded by featuresMu
	featuresMu  sync.Mutex
	featureList atomic.Pointer[[]*Feature]

	active    atomic.Pointer[segment]
	periodic  atomic.Bool  // some quota has, or had, bounds of its own
	began     atomic.Int64 // second at which the active segment's window begins
	backdates atomic.Bool  // there may be backdated series that are done with
	closed    atomic.Bool
	highWater atomic.Int64            // highest second ever seen
	jumped    atomic.Bool             // the clock fell back in the running window
	ends      [MaxRoutes]atomic.Int64 // seconds at which a route wants a window to end; 0: none

	mu      sync.Mutex                 // guards what follows; its holder may take a sealed's mu, never the reverse
	retired atomic.Pointer[[]*segment] // out of use, being sealed; changed under mu, read without
	sealed  atomic.Pointer[[]*sealed]  // by start; changed under mu, read without
	unsaved []unsaved

	tidying     sync.Mutex            // held while segments are folded or merged
	reading     int                   // iterations over Records, which a merge would disturb; guarded by tidying
	unmarked    map[*sealed][]*sealed // merged segments whose inputs' marks are not durable yet; guarded by tidying
	totalsMu    sync.Mutex            // guards every series' total
	lastAt      map[*Series]int64     // end of the window that a Last total is from; guarded by totalsMu
	totalsMonth int32                 // the month that they speak of; guarded by totalsMu

	rotating   semaphore     // held while segments change roles
	spare      *segment      // the next active one, prepared; guarded by rotating
	evictedIn  int32         // month in which idle series were last forgotten; housekeep's
	kick       chan struct{} // there is something to seal or to prepare
	untidy     chan struct{} // a window has ended
	stop       chan struct{}
	maintained sync.WaitGroup
	closing    sync.Once
	closeErr   error
}

// semaphore is a mutex whose waiters can give up.
type semaphore chan struct{}

func (s semaphore) lock(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s semaphore) unlock() { <-s }

// Open locks and recovers cfg.Dir, and begins a window.
func Open(cfg Config) (*Ledger, error) {
	l := &Ledger{
		routes: slices.Clone(cfg.Routes), lanes: make([]lane, len(cfg.Routes)),
		window: cfg.Window, syncPolicy: cfg.Sync, retain: cfg.Retain, adopt: cfg.Adopt,
		confirmBytes: cfg.MaxDisk / 8, spacing: spacingOf(cfg.MinWindow), instance: cfg.Instance,
		refuseWhenFull: cfg.RefuseWhenFull, maxQuantity: MaxQuantity, mostBlocks: mostBlocks, log: cfg.Logger,
		features: make(map[string]*Feature), lastAt: make(map[*Series]int64), unmarked: make(map[*sealed][]*sealed),
		rotating: make(semaphore, 1), kick: make(chan struct{}, 1), untidy: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if cfg.mostBlocks > 0 {
		l.mostBlocks = cfg.mostBlocks
	}
	l.health.log = cfg.Logger
	l.events = newEvents(cfg.EventWindow)
	l.featureList.Store(new([]*Feature))
	l.sealed.Store(new([]*sealed))
	l.retired.Store(new([]*segment))
	for i := range l.lanes {
		l.lanes[i].busy, l.lanes[i].lasts, l.lanes[i].ready = make(map[pair]bool), make(map[string]int64), make(chan struct{}, 1)
		if most := l.routes[i].MaxQuantity; most > 0 {
			l.maxQuantity = min(l.maxQuantity, most)
		}
	}
	l.totalsMonth = monthOf(time.Now().Unix())
	l.syncAlways = cfg.Dir != "" && cfg.Sync == SyncAlways // before recovery makes series
	if cfg.Dir == "" {
		l.syncPolicy = SyncNever
	} else if err := l.openDir(cfg); err != nil {
		return nil, err
	}
	if l.store == nil {
		l.totals, _ = openTotals(l, nil)
		l.quarantine, _, _ = openQuarantine(l)
	}
	l.adoptOrphans()
	if err := l.begin(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	l.maintained.Go(l.maintain)
	l.maintained.Go(l.housekeep)
	return l, nil
}

// openDir recovers what is in the directory.
func (l *Ledger) openDir(cfg Config) (err error) {
	if l.store, err = openStore(cfg); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.release())
		}
	}()
	if l.store.weak != "" {
		l.log.Info("meter: the directory's filesystem protects less", "dir", cfg.Dir, "because", l.store.weak)
	}
	l.began.Store(time.Now().Unix())
	now := monthOf(l.began.Load())
	l.totals, err = openTotals(l, func(all *fold) {
		for k, u := range all.usages {
			if k.month >= now {
				l.noteUsage([]byte(k.key), k.kind, k.month, when{}, u.at, u.quantity)
			}
			if k.kind == sink.Last { // settled, so attempted, unless another one was
				for i := range l.lanes {
					l.lanes[i].attempted(k.key, u.at-1)
				}
			}
		}
		if l.periods, err = openPeriods(l.store, all); err == nil {
			l.resume(all)
			l.resumeEver(all)
		}
	})
	if err != nil {
		return err
	}
	l.highWater.Store(l.totals.highWater)
	l.began.Store(l.tick())
	if err := l.store.loadSince(l.retain, len(l.totals.books) > 0, max(time.Now().Unix(), l.totals.highWater)); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	var decisions map[decisionKey]quarantineLine
	if l.quarantine, decisions, err = openQuarantine(l); err != nil {
		return err
	}
	if err := l.recover(cfg.Dir); err != nil {
		return err
	}
	l.catchUp()
	if err := l.totals.closeTail(l, l.holds); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	if err := l.checkAddresses(l.sealedNow()); err != nil {
		return err
	}
	return l.applyDecisions(l.sealedNow(), decisions)
}

// checkAddresses refuses a route whose name led elsewhere when usage was counted
// that is still owed: it would be billed to the wrong account.
func (l *Ledger) checkAddresses(list []*sealed) error {
	for _, sd := range list {
		if sd.settled() {
			continue
		}
		for i, o := range sd.head.routes {
			for _, r := range l.routes {
				if r.Name == o.name && sd.table[i] < 0 {
					return fmt.Errorf("meter: route %q delivers to %q now, and usage is still owed to another address under that name: give the new destination a name of its own, and keep the old one until Books shows nothing pending for it", r.Name, r.Address)
				}
			}
		}
	}
	return nil
}

// applyDecisions finishes decisions whose process died before the slot changed.
func (l *Ledger) applyDecisions(list []*sealed, decisions map[decisionKey]quarantineLine) error {
	words := map[string]state{"voided": voided, "delivered": delivered, "rejected": rejected, "pending": pending}
	for k, line := range decisions {
		sd, block, entry, err := locate(list, k.route, k.id)
		to, ok := words[line.Settled]
		if err != nil || !ok {
			continue // long settled
		}
		sd.mu.Lock()
		_, err = sd.load()
		if s := sd.outcomes(block).states[entry]; err == nil && undone(s, to) {
			if err = sd.decide(block, entry, to); sd.copied && to == pending {
				err = errors.Join(err, l.doubt(sd, block, entry))
			}
		}
		sd.unload()
		sd.mu.Unlock()
		if err != nil {
			return fmt.Errorf("meter: can't apply the decision on record %s: %w", k.id, err)
		}
	}
	return nil
}

// undone reports whether a decision to bring a record into state to, the latest one
// about it, can't have been carried out yet if the record is in state s. To send it
// again can: it may have been attempted since. What ends it stays the end.
func undone(s, to state) bool {
	return s.held() || s == delivered && to == voided || !s.settled() && to.settled()
}

// doubt undoes a decision to send a record again that was found beside a copy: the
// original may have carried it out. The caller holds sd.mu.
func (l *Ledger) doubt(sd *sealed, block uint32, entry int) error {
	r, err := sd.record(block, entry, 0)
	if err != nil {
		return err
	}
	line := newQuarantineLine(r, sd.head.routes[entry].name)
	line.Outcome, line.Reason = sink.InDoubt.String(), "the file is a copy, and its original may have sent this record again"
	if err := l.quarantine.append([]quarantineLine{line}); err != nil {
		return err
	}
	sd.set(block, func(o *outcomes) { o.states[entry], o.first[entry] = doubtHeld, unknownTime })
	return sd.persist([]uint32{block}, true)
}

// begin makes the first segment and wakes every route.
func (l *Ledger) begin() error {
	now := l.tick()
	l.evictedIn = monthOf(now)
	start := now
	for _, sd := range l.sealedNow() {
		if l.store != nil {
			start = max(start, sd.head.start+l.spacing)
		}
	}
	if err := l.wait(context.Background(), start-time.Now().Unix()-maxDriftOpen); err != nil {
		return err
	}
	seg := l.prepare(0)
	if err := l.activate(seg, start); err != nil {
		return fmt.Errorf("meter: Dir: %w", err)
	}
	l.enter(seg)
	for i := range l.lanes {
		nudge(l.lanes[i].ready)
	}
	nudge(l.kick)
	nudge(l.untidy)
	return nil
}

// insert adds to a new sealed list, in order of time; readers keep the one that
// they have. The caller holds mu.
func (l *Ledger) insert(more ...*sealed) {
	list := append(slices.Clone(l.sealedNow()), more...)
	slices.SortStableFunc(list, func(a, b *sealed) int { return cmp.Compare(a.head.start, b.head.start) })
	l.sealed.Store(&list)
}

// holds reports whether a segment is in the sealed list.
func (l *Ledger) holds(u uuid) bool {
	return slices.ContainsFunc(l.sealedNow(), func(sd *sealed) bool { return sd.head.uuid == u })
}

// retiredNow are the segments that are being sealed, oldest first: mostly none.
func (l *Ledger) retiredNow() []*segment { return *l.retired.Load() }

// sealedNow is the sealed list as it is now, oldest first.
func (l *Ledger) sealedNow() []*sealed { return *l.sealed.Load() }

// wake tells every route that sd may have something for it.
func (l *Ledger) wake(sd *sealed) {
	for r := range l.lanes {
		if sd.entry[r] >= 0 {
			nudge(l.lanes[r].ready)
		}
	}
}

// Close seals what was counted, syncs and unlocks, even when ctx has ended:
// nothing in it waits for a sink. Later counts are ErrClosed. Batches that are
// still being delivered resolve into nothing; they are in doubt at the next Open.
func (l *Ledger) Close(context.Context) error {
	l.closing.Do(func() {
		l.exclusively(func() { l.closed.Store(true) })
		close(l.stop) // ends every wait
		l.rotating <- struct{}{}
		l.maintained.Wait()
		if l.spare != nil {
			l.discard(l.spare)
			l.spare = nil
		}
		err := l.rotate(true)
		l.mendPeriods()
		l.syncPeriods()
		for _, sd := range l.sealedNow() {
			sd.mu.Lock()
			err = errors.Join(err, sd.flush())
			sd.mu.Unlock()
		}
		l.closeErr = errors.Join(err, l.release())
		l.rotating.unlock()
	})
	return l.closeErr
}

// Abandon ends the ledger as the death of its process would: nothing more is sealed,
// written or synced, and the directory is free.
func (l *Ledger) Abandon() {
	l.closing.Do(func() {
		l.exclusively(func() { l.closed.Store(true) })
		close(l.stop)
		l.maintained.Wait()
		l.closeErr = errors.Join(ErrClosed, l.release())
	})
}

// release closes files and gives the directory up.
func (l *Ledger) release() error {
	var errs []error
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		if sd.file != nil {
			errs = append(errs, sd.file.Close())
			sd.file = nil
		}
		sd.released = true
		sd.mu.Unlock()
	}
	if l.quarantine != nil {
		errs = append(errs, l.quarantine.close())
	}
	if l.periods != nil {
		errs = append(errs, l.periods.close())
	}
	if l.totals != nil && l.totals.file != nil {
		errs = append(errs, l.totals.file.Close())
	}
	if l.store != nil && l.store.lock != nil {
		errs = append(errs, l.store.lock.Close())
	}
	return errors.Join(errs...)
}
