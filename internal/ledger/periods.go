package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/inprocess/meter/internal/disk"
)

// periods remembers the bounds of quotas that don't follow the calendar, so that after
// a restart the windows that are still there are counted in the right period. It is an
// append-only file of frames, of which a period's last one is right. Learning costs one
// write to it, which outlives the process at once; a power cut takes as much of it as of
// counts. What is folded away stands, by period, in [totals].
type periods struct {
	store   *store
	syncing sync.Mutex // held while the file is synced or replaced; taken before mu

	mu       sync.Mutex
	file     *os.File
	size     int64
	least    int64  // size after the last rewrite
	appended uint64 // frames
	synced   uint64 // as many of them are safe from power loss
	broken   bool   // something is missing in it, or may be
	closed   bool
}

const (
	periodsFile              = "periods"
	framePeriod    frameKind = 5
	rewritePeriods           = 1 << 20
)

func appendPeriod(b []byte, k periodKey, p period) []byte {
	kind := byte(0)
	if k.ever {
		kind = 1
	}
	b = appendText(append(b, 'p', kind), k.key)
	for _, n := range [...]int64{k.since, p.start, p.end, p.base, p.after, p.counted} {
		b = binary.AppendVarint(b, n)
	}
	return b
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
				all.addPeriod(k, p)
			}
		}
	})
}

// keep keeps the bounds of a tally's period. It returns once they are as safe as counts
// are, or Health says why not.
func (l *Ledger) keep(t *Tally) { _ = l.keepSafely(t, l.syncAlways) }

// keepSafely is keep that returns the error, too; always: safe from power loss.
func (l *Ledger) keepSafely(t *Tally, always bool) error {
	l.periodic.Store(true)
	if l.periods == nil {
		_, n, end := t.bounds()
		t.keptAt(n)
		l.endWindowAt(end)
		return nil
	}
	end, err := l.periods.keep(t, always)
	l.tellPeriods(err)
	l.endWindowAt(end)
	return err
}

// endWindowAt has a window end where a period does.
func (l *Ledger) endWindowAt(second int64) {
	if l.periodEnds.add(second) {
		nudge(l.kick) // it may sleep past it
	}
}

func (l *Ledger) tellPeriods(err error) {
	switch {
	case err != nil:
		l.health.set("periods", fmt.Errorf("meter: the bounds of a quota's period can't be kept: a restart may forget usage within it: %w", err))
	case l.periods.whole():
		l.health.clear("periods")
	}
}

func (p *periods) whole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.broken
}

// bounds is the frame that says which period is the tally's, and how much was learned
// by then; nil if nothing was since it was kept.
func (t *Tally) bounds() (frame []byte, learned uint32, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.learned == t.kept {
		return nil, t.kept, 0
	}
	return t.frame(), t.learned, t.own.end
}

// frame is of the tally's periods. The caller holds mu.
func (t *Tally) frame() []byte {
	b := newFold(uuid{}).preamble(nil)
	key := string(t.plain.appendKey(nil))
	for i, p := range [...]period{t.own, t.ever} {
		if p.end != 0 {
			p.counted = 0 // stands in the windows and in the totals
			b = appendPeriod(b, periodKey{key, p.since, i == 1}, p)
		}
	}
	return appendFrame(nil, uuid{}, framePeriod, b)
}

// keptAt notes that as much as was learned then is kept, or won't be.
func (t *Tally) keptAt(learned uint32) {
	t.mu.Lock()
	t.kept = max(t.kept, learned)
	t.mu.Unlock()
}

func (p *periods) keep(t *Tally, always bool) (end int64, err error) {
	p.mu.Lock()
	frame, learned, end := t.bounds()
	if p.closed {
		p.mu.Unlock()
		return end, nil
	}
	switch {
	case frame != nil:
		if err = p.append(frame); err != nil {
			p.broken = true
		}
	case p.broken: // it may be what is missing
		err = errBroken
	}
	upTo := p.appended
	p.mu.Unlock()
	if always && err == nil {
		err = p.sync(upTo) // one sync is for all that were appended
	}
	t.keptAt(learned)
	return end, err
}

// append adds a frame. The caller holds mu.
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
		return err
	}
	p.size += int64(len(frame))
	p.appended++
	return nil
}

// sync makes the first frames safe from power loss.
func (p *periods) sync(upTo uint64) error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	appended, file, broken, closed := p.appended, p.file, p.broken, p.closed
	done := p.synced >= upTo
	p.mu.Unlock()
	switch {
	case done || closed:
		return nil
	case broken:
		return errBroken // a sync that failed once proves nothing when it works again
	}
	err := p.store.steps(
		step{"sync bounds", func() error { return disk.Sync(file) }},
		step{"sync directory", func() error { return disk.SyncDir(p.store.dir) }},
	)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.broken = true
	} else {
		p.synced = appended
	}
	return err
}

var errBroken = errors.New("writing to its file failed before, and it is yet to be replaced")

// syncPeriods makes safe from power loss what was learned.
func (l *Ledger) syncPeriods() {
	p := l.periods
	if p == nil || !p.whole() {
		return
	}
	p.mu.Lock()
	upTo := p.appended
	p.mu.Unlock()
	if err := p.sync(upTo); err != nil {
		l.tellPeriods(err)
	}
}

// mendPeriods writes the file anew if something is missing in it.
func (l *Ledger) mendPeriods() {
	if l.periods != nil && !l.periods.whole() {
		l.tidyPeriods()
	}
}

// tidyPeriods writes the file anew once most of it is of the past, or it may not be
// what it should.
func (l *Ledger) tidyPeriods() {
	p := l.periods
	if p == nil {
		return
	}
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	if p.closed || !p.broken && p.size < rewritePeriods+4*p.least {
		p.mu.Unlock()
		return
	}
	err := p.rewrite(l.featuresNow())
	p.mu.Unlock()
	l.tellPeriods(err)
}

// rewrite replaces the file by what is known now. The caller holds both locks.
func (p *periods) rewrite(features []*Feature) error {
	var b []byte
	for _, f := range features {
		for s, t := range f.tallies.bySeries.Range {
			t := t.(*Tally)
			t.mu.Lock()
			if t.plain == s.(*Series) && (t.own.end != 0 || t.ever.end != 0) {
				b = append(b, t.frame()...)
			}
			t.mu.Unlock()
		}
	}
	err := p.store.writeFile(periodsFile, b)
	if p.file != nil {
		p.file.Close() // it may have been replaced, also if that failed
		p.file = nil
	}
	if err != nil {
		p.broken = true
		return err
	}
	p.least, p.size, p.synced, p.broken = int64(len(b)), int64(len(b)), p.appended, false
	return nil
}

func (p *periods) close() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}
