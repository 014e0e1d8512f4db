package ledger

import (
	"github.com/inprocess/meter/sink"
)

// periodKey is a subject's period. No two have the same since.
type periodKey struct {
	key   string // of the series without dimensions
	since int64
	ever  bool // the count of BeginEver, not that of a quota
}

// addPeriod brings in what a fold, or the file of bounds, says of a period: what was
// counted in it, beside base, adds up, of the rest the latest is right.
func (f *fold) addPeriod(k periodKey, p period) {
	p.counted = add(p.counted, f.periods[k].counted)
	f.periods[k] = p
}

// latest are the newest periods of each subject, those of quotas or those since ever.
func (f *fold) latest(ever bool) map[string]periodKey {
	newest := make(map[string]periodKey)
	for k := range f.periods {
		if known, ok := newest[k.key]; k.ever == ever && (!ok || k.since > known.since) {
			newest[k.key] = k
		}
	}
	return newest
}

// eachPeriod calls visit for the newest period of each subject, with its tally's lock
// held, and returns those for which visit says so.
func (l *Ledger) eachPeriod(all *fold, ever bool, visit func(k periodKey, t *Tally) bool) (chosen []*Tally) {
	for key, k := range all.latest(ever) {
		feature, subject, _, err := decodeKey([]byte(key))
		if err != nil {
			continue
		}
		f := l.featureFromDisk(feature, sink.Sum)
		if f == nil {
			continue
		}
		t, err := f.tally(subject)
		if err != nil {
			continue
		}
		l.periodic.Store(true)
		t.mu.Lock()
		if visit(k, t) {
			chosen = append(chosen, t)
		}
		t.mu.Unlock()
	}
	return chosen
}

// resume gives subjects the periods that this directory's last process knew, with what
// was folded away of them.
func (l *Ledger) resume(all *fold) {
	l.eachPeriod(all, false, func(k periodKey, t *Tally) bool {
		t.own, t.usesOwn = all.periods[k], true
		t.own.counted = add(t.own.counted, t.own.base)
		l.periodEnds.add(t.own.end)
		return false
	})
}

// catchUp brings the months of resumed tallies to what was recovered.
func (l *Ledger) catchUp() {
	for _, f := range l.featuresNow() {
		for _, t := range f.tallies.bySeries.Range {
			t.(*Tally).catchUp()
		}
	}
}

func (t *Tally) catchUp() {
	t.mu.Lock()
	t.month.counted += t.unseen()
	t.mu.Unlock()
}

// adoptPeriods learns the bounds that the owner of an adopted directory knew, before
// its windows come: of subjects of whom none are known here, or none that run. What was
// counted in a period before that is told by adoptedUse.
func (l *Ledger) adoptPeriods(all *fold) {
	for _, t := range l.eachPeriod(all, false, func(k periodKey, t *Tally) bool {
		theirs := all.periods[k]
		theirs.roll(l.began.Load())
		at, seen := t.look(theirs.start)
		if t.own.end != 0 && theirs.start < t.own.end {
			return false
		}
		theirs.base, theirs.counted = 0, 0
		if at >= theirs.since {
			theirs.counted = seen.window
		}
		t.own, t.usesOwn = theirs, true
		t.learned++
		return true
	}) {
		l.keep(t)
	}
}

// adoptedUse is what an adopted directory has counted in the periods that run here, or
// that share time with one of those, and that won't count by itself: what it has folded
// away, and such of the windows that still wait there as would count there and won't
// here. It counts from when the totals that say so are ours. Where a process died
// between moving windows and that, those that were moved are not told of.
func (l *Ledger) adoptedUse(all *fold, waiting []*sealed) map[periodKey]period {
	type both struct{ theirs, own period }
	shared := make(map[string]*both)
	l.eachPeriod(all, false, func(k periodKey, t *Tally) bool {
		theirs := all.periods[k]
		theirs.roll(l.began.Load())
		if own := t.own; theirs.since == k.since && theirs.start < own.end && own.start < theirs.end {
			own.counted = theirs.counted
			shared[k.key] = &both{theirs, own}
		}
		return false
	})
	if len(shared) == 0 {
		return nil
	}
	for _, sd := range waiting {
		sd.eachSum(func(feature, subject string, at when, n int64) {
			b := shared[string(appendKey(nil, feature, subject, nil))]
			switch {
			case b == nil:
			case b.theirs.has(at) && !b.own.has(at) && at.used >= b.own.start:
				b.own.counted = add(b.own.counted, n)
			case b.own.has(at) && at.counted < b.theirs.since && monthOf(at.used) == monthOf(b.theirs.since):
				b.theirs.base = max(0, b.theirs.base-n) // it was part of that
			}
		})
	}
	use := make(map[periodKey]period, len(shared))
	for key, b := range shared {
		b.own.counted = add(b.own.counted, b.theirs.base)
		use[periodKey{key, b.own.since, false}] = b.own
	}
	return use
}

// eachSum calls visit for what the segment's slots hold of Sums.
func (sd *sealed) eachSum(visit func(feature, subject string, at when, n int64)) {
	if sd.head.merged {
		return
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	if err != nil {
		return // Take says so, too
	}
	defer sd.unload()
	for _, block := range img.slots {
		if img.bad[block] || img.shape(block).kind() != sink.Sum {
			continue
		}
		if feature, subject, _, err := decodeKey(img.key(block)); err == nil {
			visit(feature, subject, sd.when(block), img.quantity(block))
		}
	}
}

// addUse counts what was adopted.
func (l *Ledger) addUse(use map[periodKey]period) {
	l.eachPeriod(&fold{periods: use}, false, func(k periodKey, t *Tally) bool {
		if t.own.since == k.since {
			t.own.counted = add(t.own.counted, use[k].counted)
		}
		return false
	})
}

// periodsOf visits those of the subject's periods to which that belongs which is about
// to be folded, and that still matter.
func (f *Feature) periodsOf(key []byte, at when, visit func(periodKey, period)) {
	_, subject, _, err := decodeKey(key)
	if err != nil {
		return
	}
	t := f.Tally(subject)
	if t == nil {
		return
	}
	t.mu.Lock()
	own, ever, name := t.own, t.ever, string(t.plain.appendKey(nil))
	t.mu.Unlock()
	own.roll(at.counted)
	if own.has(at) {
		visit(periodKey{name, own.since, false}, own)
	}
	if ever.has(at) {
		visit(periodKey{name, ever.since, true}, ever)
	}
}
