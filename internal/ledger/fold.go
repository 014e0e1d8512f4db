package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/inprocess/meter/internal/disk"
)

// tidy runs after each window: settled segments are folded away, a long outage's
// are merged, and last month's customers forgotten.
func (l *Ledger) tidy() {
	if err := l.foldSettled(); err != nil {
		l.health.set("totals", fmt.Errorf("meter: settled segments can't be folded: %w", err))
	} else {
		l.health.clear("totals")
	}
	l.tidyPeriods()
	l.settleMerges()
	l.merge()
	l.adoptOrphans()
	l.evictIdle()
	l.tidyBackdated()
	l.events.forget(time.Now().Unix())
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		if sd.flush() == nil && sd.cold() {
			sd.unload()
		}
		sd.mu.Unlock()
	}
	if l.store != nil {
		if err := l.store.dropRetained(l.retain, 0); err != nil {
			l.health.set("retained", fmt.Errorf("meter: retained segments can't be deleted: %w", err))
		} else {
			l.health.clear("retained")
		}
	}
}

// cold reports whether no delivery works on the segment. The caller holds mu.
func (sd *sealed) cold() bool {
	for _, at := range sd.cursor {
		if at > 0 {
			return false
		}
	}
	return true
}

// foldSettled replaces segments that nothing will ever happen to any more by
// their totals.
func (l *Ledger) foldSettled() error {
	l.tidying.Lock()
	defer l.tidying.Unlock()
	now := time.Now()
	confirming := l.confirming(now)
	for {
		var settled []*sealed
		var folds []*fold
		for _, sd := range l.sealedNow() {
			if len(settled) == 64 {
				break
			}
			if confirming[sd] {
				continue
			}
			sd.mu.Lock()
			if sd.unsettled == 0 && !sd.paused && sd.pins == 0 && !sd.remembers(now) && !sd.testifies(now) {
				f, err := sd.foldOf()
				if err != nil {
					sd.mu.Unlock()
					return err
				}
				if sd.unsettled == 0 { // what was read says so, too
					sd.folded = true
					settled, folds = append(settled, sd), append(folds, f)
				}
			}
			sd.mu.Unlock()
		}
		if len(settled) == 0 || l.stopping() {
			return nil
		}
		if err := l.totals.write(folds); err != nil {
			for _, sd := range settled {
				sd.mu.Lock()
				sd.folded = false
				sd.mu.Unlock()
			}
			return err
		}
		l.mu.Lock()
		l.totals.apply(folds)
		left := slices.DeleteFunc(slices.Clone(l.sealedNow()), func(sd *sealed) bool { return slices.Contains(settled, sd) })
		l.sealed.Store(&left)
		l.unsaved = slices.DeleteFunc(slices.Clone(l.unsaved), func(u unsaved) bool { return slices.Contains(settled, u.sd) })
		if len(l.unsaved) == 0 {
			l.health.clear("seal")
		}
		l.mu.Unlock()
		if err := l.retireFiles(settled); err != nil {
			return err
		}
	}
}

// confirming are the segments with records that their billers may still take back.
// They must not fill the disk: beyond a share of the budget the oldest is let go.
func (l *Ledger) confirming(now time.Time) map[*sealed]bool {
	waiting, list, early := make(map[*sealed]bool), l.sealedNow(), 0
	for i, room := len(list)-1, l.confirmBytes; i >= 0; i-- {
		sd := list[i]
		sd.mu.Lock()
		if now.Before(sd.confirm) {
			room -= int64(sd.head.blocks) * blockSize
			waiting[sd] = room >= 0
			if room < 0 && sd.unsettled == 0 {
				early++
			}
		}
		sd.mu.Unlock()
	}
	if early > 0 {
		l.health.set("confirm", errors.New("meter: delivered records are folded before their biller's time for second thoughts is over: raise Config.MaxDisk"))
	} else {
		l.health.clear("confirm")
	}
	return waiting
}

func (l *Ledger) retireFiles(settled []*sealed) error {
	if l.store == nil {
		return nil
	}
	var failed error
	for _, sd := range settled {
		sd.mu.Lock()
		path := sd.path
		sd.dirty = false
		sd.unload()
		sd.mu.Unlock()
		if path == "" {
			continue // there was no room for it, and now it needs none
		}
		failed = errors.Join(failed, l.store.retire(path, l.retain))
	}
	if err := errors.Join(failed, disk.SyncDir(l.store.dir)); err != nil {
		return err
	}
	return l.totals.compact(monthOf(l.tick()))
}
