package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/inprocess/meter/sink"
)

// Records yields every record that belongs to a route and whose time of use began in
// [start, end), with its outcome: what is open, and what is settled and retained. It
// fails at once if not all of it is retained. A segment that can't be read is in
// Health; what is yielded is then not complete.
//
// It looks at one segment after the other, so a record that changes meanwhile is
// seen as it was before or after.
func (l *Ledger) Records(route string, start, end time.Time) (iter.Seq2[sink.Record, sink.Outcome], error) {
	switch since := l.keptSince(); {
	case since == keepsNothing:
		return nil, errors.New("meter: delivered records are not retained: set Config.Retain to at least the time that you want to look back")
	case start.Unix() < since:
		return nil, fmt.Errorf("meter: records of windows before %s are not retained any more", time.Unix(since, 0).UTC().Format(time.RFC3339))
	}
	used := func(r *routeRecord) bool { return !r.Start.Before(start) && r.Start.Before(end) }
	within := func(h *head) bool {
		began := time.Unix(h.start, 0)
		if h.dated { // what was used before it, and within it if it is of several windows
			return !began.Before(start) || h.merged && time.Unix(h.end, 0).After(start)
		}
		return !began.Before(start) && began.Before(end)
	}
	return func(yield func(sink.Record, sink.Outcome) bool) {
		l.tidying.Lock()
		l.reading++
		list := l.sealedNow()
		l.tidying.Unlock()
		defer func() {
			l.tidying.Lock()
			l.reading--
			l.tidying.Unlock()
		}()
		seen := make(map[uuid]bool)
		for _, sd := range list {
			if !within(&sd.head) {
				continue
			}
			found, ok := l.recordsOf(sd, route)
			if !ok {
				continue // folded meanwhile: it is among the retained ones
			}
			seen[sd.head.uuid] = true
			for _, r := range found {
				if used(&r) && !yield(r.Record, r.state.outcome()) {
					return
				}
			}
		}
		for _, f := range l.store.retained() {
			h, err := readHead(f.path)
			if err == nil && (!within(h) || seen[h.uuid]) {
				continue
			}
			var found []routeRecord
			if err == nil {
				found, err = l.recordsIn(f.path, route)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.health.set("retained "+filepath.Base(f.path), fmt.Errorf("meter: retained segment %s is damaged, and records of it are missing: %w", filepath.Base(f.path), err))
			}
			for _, r := range found {
				if used(&r) && !yield(r.Record, r.state.outcome()) {
					return
				}
			}
		}
	}, nil
}

// keptSince is the second from which on every record is still here.
func (l *Ledger) keptSince() int64 {
	if l.store == nil {
		return keepsNothing
	}
	return l.store.since.Load()
}

// routeRecord is a record with its state on one route.
type routeRecord struct {
	sink.Record
	state state
}

// recordsOf reads a segment's records; not ok if the segment is folded.
func (l *Ledger) recordsOf(sd *sealed, route string) (found []routeRecord, ok bool) {
	l.tidying.Lock()
	defer l.tidying.Unlock()
	if !l.holds(sd.head.uuid) {
		return nil, false
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	loaded := sd.img != nil
	if _, err := sd.load(); err != nil {
		l.health.set("segment "+sd.head.uuid.String(), fmt.Errorf("meter: sealed counts can't be read: %w", err))
		return nil, true
	}
	found = sd.routeRecords(route)
	if !loaded {
		sd.unload()
	}
	return found, true
}

// recordsIn reads the records of a retained file.
func (l *Ledger) recordsIn(path, route string) ([]routeRecord, error) {
	h, err := readHead(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sd := newSealed(l, *h, path)
	var d damage
	sd.img, d = newImage(data[min(h.size(), int64(len(data))):], h.uuid, true)
	if d.missing = h.missing(sd.img); d.any() {
		err = fmt.Errorf("%d blocks and %d counts are unreadable, %d slots are missing", d.blocks, d.counts, d.missing)
	}
	return sd.routeRecords(route), err
}

// routeRecords are the records that a route owes or owed. The caller holds mu.
func (sd *sealed) routeRecords(route string) (found []routeRecord) {
	for i, o := range sd.head.routes {
		if o.name != route {
			continue
		}
		for _, block := range sd.img.slots {
			o := sd.outcomes(block)
			s := o.states[i]
			if s == moved || s == unowed || s == undecided || sd.img.bad[block] {
				continue
			}
			attempt := 0
			if o.first[i] != 0 {
				attempt = 1 // at least
			}
			if r, err := sd.record(block, i, attempt); err == nil {
				found = append(found, routeRecord{r, s})
			}
		}
	}
	return found
}
