package ledger

import (
	"time"
)

// maintain runs until the ledger closes: it syncs, rotates and retries.
func (l *Ledger) maintain() {
	sync := l.syncPolicy
	if sync <= 0 {
		sync = time.Second // still looks at the wall clock, and retries
	}
	if l.store == nil && l.window <= 0 {
		sync = 24 * time.Hour // nothing to do
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	// Wall time decides: after a suspended night the window is long over.
	window := l.windowEnd(time.Now())
	for {
		wait := sync
		if l.window > 0 {
			now := time.Now()
			wait = min(wait, l.due(window, now).Sub(now))
		}
		if l.inMemoryOnly() {
			wait = min(wait, time.Second)
		}
		timer.Reset(max(wait, 0))
		select {
		case <-l.stop:
			return
		case <-l.kick:
			l.background(func() {
				l.sealRetired()
				l.prepareSpare()
			})
			continue
		case <-timer.C:
		}
		now := time.Now()
		if l.syncPolicy > 0 {
			_ = l.active.Load().journal.sync() // a failure shows in Health
			l.syncPeriods()
		}
		l.mendPeriods()
		if l.inMemoryOnly() {
			l.background(func() {
				l.saveAgain()
				l.prepareSpare()
			})
		}
		if l.window > 0 && !now.Before(l.due(window, now)) {
			l.background(func() {
				if !now.Before(l.due(window, now)) { // a flush may have been faster
					_ = l.rotate(false) // a failure shows in Health
				}
			})
			window = l.windowEnd(now)
			nudge(l.untidy)
		}
	}
}

// inMemoryOnly reports whether counts that should be on disk are not.
func (l *Ledger) inMemoryOnly() bool {
	return l.store != nil && (len(l.unsavedNow()) > 0 || l.active.Load().fallback)
}

// housekeep runs until the ledger closes: it tidies after every window, which can
// take long and must not keep the next one from ending.
func (l *Ledger) housekeep() {
	for {
		select {
		case <-l.stop:
			return
		case <-l.untidy:
			l.tidy()
		}
	}
}

// stopping reports whether the ledger is about to close.
func (l *Ledger) stopping() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// nudge signals a channel of capacity 1.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// background runs fn with rotating held, unless the ledger closes first.
func (l *Ledger) background(fn func()) {
	select {
	case l.rotating <- struct{}{}:
		fn()
		l.rotating.unlock()
	case <-l.stop:
	}
}

// EndWindowAt has the running window end at a time that matters to a route, if it
// comes before the window's regular end. Each route has one such time, the latest
// that it named; zero: none. A window that only Flush ends is left alone.
func (l *Ledger) EndWindowAt(route int, at time.Time) {
	second := int64(0)
	if at.After(time.Now()) {
		second = at.Unix()
	}
	before := l.ends[route].Load()
	if before == second || before != 0 && before <= time.Now().Unix() {
		return // one that has come and was not carried out yet stays
	}
	if l.ends[route].CompareAndSwap(before, second) {
		nudge(l.kick) // it may sleep past it
	}
}

// due is when the running window ends, seen from now: at its regular end or where a
// route wants it, but not so soon after its begin, or before an end that matters, that windows
// would begin too near to each other. What has passed since its begin is not the wall
// clock's business, which may have been set back.
func (l *Ledger) due(window, now time.Time) time.Time {
	soonest := now.Add(l.youth(now))
	at := later(l.periodCut(window, now), soonest)
	if first := l.firstEnd(); first != 0 && first < at.Unix()+l.spacing {
		at = later(time.Unix(first, 0), soonest)
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// SoonestEnd is when the running window may end at the soonest. Where ends follow each
// other closely, one before it can't be kept, and to try would cost the next one, too.
func (l *Ledger) SoonestEnd() time.Time {
	now := time.Now()
	return now.Add(l.youth(now))
}

// youth is how long the running window must still run.
func (l *Ledger) youth(now time.Time) time.Duration {
	return max(0, time.Duration(l.spacing)*time.Second-now.Sub(l.active.Load().since))
}

// firstEnd is the first second at which a route wants a window to end; 0: none.
func (l *Ledger) firstEnd() (first int64) {
	for i := range l.ends {
		if at := l.ends[i].Load(); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// forgetEnds drops the times that have come.
func (l *Ledger) forgetEnds(now time.Time) {
	for i := range l.ends {
		if at := l.ends[i].Load(); at <= now.Unix() {
			l.ends[i].CompareAndSwap(at, 0)
		}
	}
	l.periodEnds.pass(now.Unix())
}

// windowEnd is the end of the window that now falls in. Windows end at whole
// multiples of their length, and so most with every hour and day in UTC; all do with
// the month.
func (l *Ledger) windowEnd(now time.Time) time.Time {
	if l.window <= 0 {
		return time.Time{}
	}
	end := now.Truncate(l.window).Add(l.window)
	if _, month := monthBounds(monthOf(now.Unix())); month.Before(end) {
		return month
	}
	return end
}

// windowEndSecond is the end of the window that a second falls in.
func (l *Ledger) windowEndSecond(second int64) int64 {
	return l.windowEnd(time.Unix(second, 0)).Unix()
}

func (l *Ledger) unsavedNow() []unsaved {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}
