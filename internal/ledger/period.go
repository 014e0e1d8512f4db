package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// periods remembers the bounds of quotas that don't follow the calendar, so that after
// a restart the windows that are still there are counted in the right period. It is an
// append-only file of frames. Learning costs one write to it, which outlives the
// process at once; a power cut takes as much of it as of counts. What is folded away
// stands, by period, in [totals].
type periods struct {
	mu       sync.Mutex
	store    *store // nil: in memory
	file     *os.File
	size     int64
	least    int64 // size after the last rewrite
	unsynced bool
	broken   bool // what of it reached the disk is unknown
	closed   bool
}

// periodKey is a subject's period by its start.
type periodKey struct {
	key   string // of the series without dimensions
	start int64
}

// period is what is known of one: its end, and what was folded away of it.
type period struct{ end, counted int64 }

const (
	periodsFile              = "periods"
	framePeriod    frameKind = 5
	rewritePeriods           = 1 << 20
)

// addPeriod brings in what a fold, or the file of bounds, says of a period. Of several
// ends the latest that was learned is right.
func (f *fold) addPeriod(k periodKey, end, counted int64) {
	p := f.periods[k]
	if p.end == 0 || end != forever {
		p.end = end
	}
	p.counted = add(p.counted, counted)
	f.periods[k] = p
}

func appendPeriod(b []byte, k periodKey, p period) []byte {
	b = appendText(b, k.key)
	b = binary.AppendVarint(b, k.start)
	b = binary.AppendVarint(b, p.end)
	return binary.AppendVarint(b, p.counted)
}

// openPeriods reads the bounds into what the totals know of periods.
func openPeriods(st *store, all *fold) (*periods, error) {
	p := &periods{store: st}
	data, err := readIfThere(filepath.Join(st.dir, periodsFile))
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	readPeriods(data, all)
	return p, nil
}

func readPeriods(data []byte, all *fold) {
	readFrames(data, uuid{}, func(kind frameKind, payload []byte, _ int) {
		if f := newFold(uuid{}); kind == framePeriod && f.decodeInto(payload) == nil {
			for k, p := range f.periods {
				all.addPeriod(k, p.end, 0)
			}
		}
	})
}

// latest are the newest periods of each subject.
func (f *fold) latest() map[string]periodKey {
	newest := make(map[string]periodKey)
	for k := range f.periods {
		if known, ok := newest[k.key]; !ok || k.start > known.start {
			newest[k.key] = k
		}
	}
	return newest
}

// resume gives subjects the periods that another process knew, with what was folded
// away of them, and returns their tallies.
func (l *Ledger) resume(all *fold) (resumed []*Tally) {
	for key, k := range all.latest() {
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
		p := all.periods[k]
		t.mu.Lock()
		switch {
		case t.own.end == 0 || t.own.start < k.start:
			t.own, t.usesOwn = span{k.start, p.end, p.counted}, true
		case t.own.start == k.start:
			t.own.counted = add(t.own.counted, p.counted)
		}
		t.mu.Unlock()
		resumed = append(resumed, t)
	}
	return resumed
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
// its windows come.
func (l *Ledger) adoptPeriods(all *fold) {
	bounds := newFold(uuid{})
	for k, p := range all.periods {
		bounds.addPeriod(k, p.end, 0)
	}
	for _, t := range l.resume(bounds) {
		l.learn(t)
	}
}

// learn keeps the bounds of a tally's period.
func (l *Ledger) learn(t *Tally) {
	l.periodic.Store(true)
	p := l.periods
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	err := p.append(t.bounds())
	if err == nil && l.syncAlways {
		err = p.sync()
	}
	l.tellPeriods(err)
}

func (l *Ledger) tellPeriods(err error) {
	if err != nil {
		l.health.set("periods", fmt.Errorf("meter: the bounds of a quota's period can't be kept: a restart may forget usage within it: %w", err))
	} else {
		l.health.clear("periods")
	}
}

// bounds is the frame that says which period is the tally's.
func (t *Tally) bounds() []byte {
	t.mu.Lock()
	k, end := periodKey{string(t.plain.appendKey(nil)), t.own.start}, t.own.end
	t.mu.Unlock()
	f := newFold(uuid{})
	f.addPeriod(k, end, 0)
	b := f.preamble(nil)
	b = appendPeriod(append(b, 'p', 0), k, f.periods[k])
	return appendFrame(nil, uuid{}, framePeriod, b)
}

func (p *periods) append(frame []byte) error {
	if err := p.store.before("append periods"); err != nil {
		return err
	}
	if p.file == nil {
		f, err := disk.OpenFile(filepath.Join(p.store.dir, periodsFile), os.O_RDWR|os.O_CREATE)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		p.file, p.size = f, info.Size()
	}
	if _, err := p.file.WriteAt(frame, p.size); err != nil {
		p.broken = true
		return err
	}
	p.size += int64(len(frame))
	p.unsynced = true
	return nil
}

// sync makes what was learned safe from power loss. The caller holds mu.
func (p *periods) sync() error {
	if !p.unsynced {
		return nil
	}
	if err := errors.Join(disk.Sync(p.file), syncDir(p.store.dir)); err != nil {
		p.broken = true // a sync that failed once proves nothing when it works again
		return err
	}
	p.unsynced = false
	return nil
}

// syncPeriods does it for the background.
func (l *Ledger) syncPeriods() {
	if l.periods == nil {
		return
	}
	l.periods.mu.Lock()
	defer l.periods.mu.Unlock()
	if l.periods.unsynced && !l.periods.broken {
		l.tellPeriods(l.periods.sync())
	}
}

// tidyPeriods writes the file anew once most of it is of the past, or it may not be
// what it should.
func (l *Ledger) tidyPeriods() {
	p := l.periods
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.broken && p.size < rewritePeriods+4*p.least {
		return
	}
	var b []byte
	for _, f := range l.featuresNow() {
		for s, t := range f.tallies.bySeries.Range {
			if t := t.(*Tally); t.plain == s.(*Series) && t.periodic() {
				b = append(b, t.bounds()...)
			}
		}
	}
	err := p.store.writeFile(periodsFile, b)
	if err == nil {
		if p.file != nil {
			p.file.Close()
			p.file = nil
		}
		p.least, p.size, p.unsynced, p.broken = int64(len(b)), int64(len(b)), false, false
	}
	l.tellPeriods(err)
}

func (t *Tally) periodic() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.own.end != 0
}

func (p *periods) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// periodOf says to which of the subject's periods a window belongs that is about to be
// folded; ok is false if to none that still matters.
func (f *Feature) periodOf(key []byte, start int64) (k periodKey, end int64, ok bool) {
	_, subject, _, err := decodeKey(key)
	if err != nil {
		return k, 0, false
	}
	t := f.Tally(subject)
	if t == nil {
		return k, 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.own
	if own.end == 0 {
		return k, 0, false
	}
	own.roll(start, func() (int64, int64) { return t.own.end, forever })
	return periodKey{string(t.plain.appendKey(nil)), own.start}, own.end, start >= own.start
}
