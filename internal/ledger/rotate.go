package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// Windows have seconds of their own, so flushing or crashing more than once a
// second uses them up faster than they come. So much a window may run ahead of
// the seconds that there were, before somebody has to wait.
const (
	maxDriftFlush  = 1
	maxDriftOpen   = 60 // a crash loop; stays within clockSlack
	maxDriftMemory = 60 // in memory nobody compares these windows with another run's
)

// Rotate seals what was counted up to now, so that Take finds it. It returns
// once that is durable. Windows start on whole seconds of their own, so it may
// wait for the next one.
func (l *Ledger) Rotate(ctx context.Context) error {
	old := l.active.Load()
	if err := l.waitForNext(ctx, old); err != nil {
		return err
	}
	if err := l.rotating.lock(ctx); err != nil {
		return err
	}
	defer l.rotating.unlock()
	if l.closed.Load() {
		return ErrClosed
	}
	defer nudge(l.untidy)
	if l.active.Load() != old { // somebody else was faster, and sealed for us, too
		l.sealRetired()
		return l.sealTrouble()
	}
	return l.rotate(false)
}

// endWindow is Rotate for a window that has no room for a count. That what was sealed
// is not on disk yet keeps nobody from counting.
func (l *Ledger) endWindow() error {
	if err := l.Rotate(context.Background()); !errors.Is(err, errNotDurable) {
		return err
	}
	return nil
}

// waitForNext waits until a window may follow old. Nobody is kept from anything
// meanwhile.
func (l *Ledger) waitForNext(ctx context.Context, old *segment) error {
	allowed := int64(maxDriftFlush)
	if l.store == nil && l.spacing == 1 {
		allowed = maxDriftMemory
	}
	if old.empty() && !old.fallback {
		return nil
	}
	return l.wait(ctx, l.nextStart(old)-time.Now().Unix()-allowed)
}

// rotate makes the prepared segment the active one and seals the one before it.
// The caller holds rotating.
func (l *Ledger) rotate(closing bool) error {
	l.sealRetired()
	old := l.active.Load()
	if closing {
		tomb := l.heapSegment(0)
		tomb.refusal = ErrClosed
		l.retire(old, tomb)
		l.sealRetired()
		return l.saveAtLast()
	}
	defer l.forgetEnds(time.Now())
	if old.empty() && !old.fallback {
		l.restamp(old)
		return l.sealTrouble()
	}
	start := l.nextStart(old)
	atEnd := l.endsAt(old.head.start, start)
	next := l.spare
	l.spare = nil
	if next == nil {
		next = l.prepare(l.extentWanted(old))
	}
	next.head.afterEnd = atEnd
	if err := l.activate(next, start); err != nil {
		l.health.set("room", l.noRoom(err))
		l.discard(next)
		next = l.heapSegment(firstExtent)
		next.head.start, next.head.afterEnd, next.since = start, atEnd, time.Now()
	}
	old.head.atEnd = atEnd
	l.retire(old, next)
	l.sealRetired()
	nudge(l.kick) // for the next spare
	return l.sealTrouble()
}

// spacingOf is how many whole seconds windows begin apart, at least.
func spacingOf(minWindow time.Duration) int64 {
	return max(1, int64((minWindow+time.Second-1)/time.Second))
}

// nextStart picks the next window's first second: now, or the first that is far
// enough from the old window's if that one has not come yet. Where a bill ends soon
// the window begins there, for it could not end there if it began before.
func (l *Ledger) nextStart(old *segment) int64 {
	start := max(l.tick(), old.head.start+l.spacing)
	if first := l.firstEnd(); start < first && first < start+l.spacing {
		return first
	}
	return start
}

// endsAt reports whether a bill ends with a window, or within it.
func (l *Ledger) endsAt(start, next int64) bool {
	for i := range l.ends {
		if at := l.ends[i].Load(); start < at && at <= next {
			return true
		}
	}
	return false
}

// wait waits some seconds for the clock, but not longer than windows must begin
// apart: one that was set back by an hour must not stop anything for an hour.
func (l *Ledger) wait(ctx context.Context, seconds int64) error {
	if seconds <= 0 {
		return nil
	}
	timer := time.NewTimer(time.Duration(min(seconds, l.spacing+1)) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stop:
		return ErrClosed
	}
}

// tick reads the wall clock and keeps the highest second ever seen. Windows
// never begin before it.
func (l *Ledger) tick() int64 {
	now := time.Now().Unix()
	for {
		high := l.highWater.Load()
		if now <= high {
			if high-now > int64(clockSlack/time.Second) {
				l.jumped.Store(true)
				l.health.set("clock", fmt.Errorf("meter: the wall clock is %v behind the highest time seen: windows keep that time until it has caught up", time.Duration(high-now)*time.Second))
			}
			return high
		}
		if l.highWater.CompareAndSwap(high, now) {
			l.health.clear("clock")
			return now
		}
	}
}

// raise keeps a second that is known to have been.
func (l *Ledger) raise(second int64) {
	for {
		high := l.highWater.Load()
		if second <= high || l.highWater.CompareAndSwap(high, second) {
			return
		}
	}
}

func (l *Ledger) highWaterTime() time.Time {
	l.tick()
	return time.Unix(l.highWater.Load(), 0)
}

// restamp moves the window of a segment without counts forward, so that an idle
// hour does not end up in the first count's window.
func (l *Ledger) restamp(seg *segment) {
	start := max(l.tick(), seg.head.start)
	if start == seg.head.start {
		return
	}
	l.exclusively(func() {
		if seg.empty() && l.active.Load() == seg {
			// Unsynced on purpose: until the journal's first entry repeats it, a
			// power cut leaves an empty segment, and then its window is nobody's.
			seg.head.start = start
			l.began.Store(start)
			if seg.file != nil {
				_ = writePart(seg.file, openedAt, seg.head.encodeOpened())
			}
			if seg.journal != nil {
				seg.journal.reopen()
			}
		}
	})
}

// exclusively runs fn while no series can be registered.
func (l *Ledger) exclusively(fn func()) {
	for _, f := range l.featuresNow() {
		for _, x := range [...]*index{f.dimensioned, f.plain} { // in the order in which Series takes them
			for i := range x.shards {
				x.shards[i].mu.Lock()
				defer x.shards[i].mu.Unlock()
			}
		}
	}
	fn()
}

// enter makes a segment the active one.
func (l *Ledger) enter(seg *segment) {
	l.active.Store(seg)
	if !l.closed.Load() { // else it is of no window
		l.began.Store(seg.head.start)
	}
}

// retire takes old out of use in favor of next.
func (l *Ledger) retire(old, next *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active.Load() != old {
		// Its memory faulted meanwhile, and a substitute took its place.
		old = l.active.Load()
		next.head.start = max(next.head.start, old.head.start+l.spacing)
	}
	l.addRetired(old)
	l.enter(next)
}

// addRetired notes that a segment is to be sealed. The caller holds mu.
func (l *Ledger) addRetired(seg *segment) {
	list := append(slices.Clone(l.retiredNow()), seg)
	l.retired.Store(&list)
}

// substitute puts a heap segment in the place of an active one that can't go on.
// Requests call it, so it does no I/O.
func (l *Ledger) substitute(seg *segment, what string, why error) {
	if l.replaceActive(seg) {
		l.health.set(what, why)
		nudge(l.kick)
	}
}

func (l *Ledger) replaceActive(seg *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active.Load() != seg || l.closed.Load() {
		return false
	}
	next := l.heapSegment(firstExtent)
	next.head.start, next.since = max(time.Now().Unix(), seg.head.start+l.spacing), time.Now()
	atEnd := l.endsAt(seg.head.start, next.head.start)
	seg.head.atEnd, next.head.afterEnd = atEnd, atEnd
	l.addRetired(seg)
	l.enter(next)
	return true
}

// overflowed is for a segment that has no room to grow.
func (l *Ledger) overflowed(seg *segment, why error) {
	l.substitute(seg, "room", l.noRoom(why))
}

// poison is for a segment whose memory faulted.
func (l *Ledger) poison(seg *segment) {
	seg.poisoned.Store(true)
	l.substitute(seg, "fault "+seg.head.uuid.String(), fmt.Errorf("meter: the memory of %s is gone (file cut short, or the disk failed): counting goes on in memory", filepath.Base(seg.path)))
}

// noRoom says what a lack of room leads to.
func (l *Ledger) noRoom(why error) error {
	if l.refuseWhenFull {
		return fmt.Errorf("meter: refusing to count: %w", why)
	}
	return fmt.Errorf("meter: counting in memory only, a crash would lose it: %w", why)
}

// sealRetired seals every segment that is out of use.
func (l *Ledger) sealRetired() {
	for {
		retired := l.retiredNow()
		if len(retired) == 0 {
			return
		}
		seg := retired[0]
		for _, f := range l.featuresNow() {
			f.plain.barrier()
			f.dimensioned.barrier()
		}
		sd := l.seal(seg)
		l.mu.Lock()
		rest := slices.Clone(l.retiredNow()[1:])
		l.retired.Store(&rest)
		if sd != nil {
			l.insert(sd)
		}
		l.mu.Unlock()
		if sd != nil {
			l.wake(sd)
		}
	}
}

// sealTrouble reports segments that could not be made durable.
func (l *Ledger) sealTrouble() error {
	for _, u := range l.unsavedNow() {
		if u.sd.waits() {
			return errNotDurable
		}
	}
	return nil
}

var errNotDurable = errors.New("meter: sealed counts are not on disk yet, and wait in memory")

// decideRoutes fills in what each route owes for the record at block.
func (sd *sealed) decideRoutes(block uint32) {
	o := sd.outcomes(block)
	var rec sink.Record
	for i := range sd.head.routes {
		if sd.img.bad[block] && !o.states[i].settled() {
			o.states[i] = damagedCount
		}
		if o.states[i] != undecided {
			continue
		}
		r := sd.table[i]
		switch {
		case r >= 0 && sd.ledger.routes[r].Match != nil:
			if rec.ID == "" {
				var err error
				if rec, err = sd.record(block, -1, 1); err != nil {
					continue
				}
			}
			match, ok := sd.ledger.match(r, rec)
			if !ok {
				continue // stays undecided: asked again at the next Open
			}
			o.states[i] = unowed
			if match {
				o.states[i] = pending
			}
		default:
			o.states[i] = pending
		}
	}
	o.put(sd.img.bytes(block), sd.head.uuid)
}

// match asks a route's Match, which is the user's code.
func (l *Ledger) match(r int, rec sink.Record) (match, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			l.health.set("match "+l.routes[r].Name, fmt.Errorf("meter: Match of route %q panicked; the records wait undecided until the next Open: %v", l.routes[r].Name, p))
		}
	}()
	return l.routes[r].Match(rec), true
}
