package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// Settle is an operator's decision on a quarantined record: Voided, Delivered,
// Rejected, or Pending to queue it again, under the same ID unless its biller has
// taken it and then did not bill it. A record that is pending can be written off, too.
func (l *Ledger) Settle(_ context.Context, route, recordID string, as sink.Outcome, note string) error {
	return l.settle(route, recordID, as, note, nil)
}

// SettleFound is Settle for a record that is still as it was found, for what was
// arranged with its biller meanwhile holds only then.
func (l *Ledger) SettleFound(route string, found Found, as sink.Outcome, note string) error {
	return l.settle(route, found.ID, as, note, &found)
}

func (l *Ledger) settle(route, recordID string, as sink.Outcome, note string, found *Found) error {
	to, ok := map[sink.Outcome]state{sink.Voided: voided, sink.Delivered: delivered, sink.Rejected: rejected, sink.Pending: pending}[as]
	if !ok {
		return fmt.Errorf("meter: a record can be settled as voided, delivered, rejected or pending, not as %v", as)
	}
	sd, block, entry, err := locate(l.sealedNow(), route, recordID)
	if err != nil {
		return err
	}
	if r := sd.table[entry]; r >= 0 {
		// A merge that has summed the record up would bill it all the same.
		ln := &l.lanes[r]
		ln.mu.Lock()
		defer ln.mu.Unlock()
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if _, err := sd.load(); err != nil {
		if !l.holds(sd.head.uuid) { // it was merged or settled for good meanwhile
			return unknownRecord(route, recordID)
		}
		return fmt.Errorf("meter: %w", err)
	}
	r, err := sd.record(block, entry, 0)
	if err != nil {
		return err
	}
	o := sd.outcomes(block)
	switch s := o.states[entry]; {
	case s == moved:
		return fmt.Errorf("%w: meter: record %s was never sent, and stands in one of the whole hour on route %q now, under another ID", sink.ErrUnknownRecord, recordID, route)
	case found != nil && (found.state != s || found.first != o.first[entry]):
		return fmt.Errorf("meter: record %s has become %v meanwhile: look at it again", recordID, s.outcome())
	case s == delivered && to == voided && found != nil: // and the biller agreed
	case s == takenBack && to == pending && o.issues[entry] == maxIssue:
		return fmt.Errorf("meter: record %s was queued anew %d times: count its %d units again, and settle it as voided", recordID, maxIssue, r.Quantity)
	case s == pending && to != pending: // what waits to be sent can be written off
	case !s.held():
		return fmt.Errorf("meter: record %s is %v on route %q and not in quarantine", recordID, s.outcome(), route)
	}
	line := newQuarantineLine(r, route)
	line.Settled, line.Note = as.String(), note
	if err := l.quarantine.append([]quarantineLine{line}); err != nil {
		return fmt.Errorf("meter: decision not recorded: %w", err)
	}
	if err := sd.decide(block, entry, to); err != nil {
		return fmt.Errorf("meter: decision recorded, takes effect at the next Open: %w", err)
	}
	l.log.Info("meter: record settled", "route", route, "record", recordID, "as", as.String(), "note", note)
	l.wake(sd)
	return nil
}

// decide applies an operator's decision. A record that is queued again starts
// anew: the operator vouches that no attempt of it was applied.
func (sd *sealed) decide(block uint32, entry int, to state) error {
	sd.set(block, func(o *outcomes) {
		if to == pending && o.states[entry] == takenBack {
			o.issues[entry]++ // the biller knows the old ID, and would not bill it again
		}
		o.states[entry] = to
		if to == pending {
			o.first[entry] = uint32(time.Now().Unix()) // attempted before: never merged
		}
	})
	if r := sd.table[entry]; r >= 0 {
		delete(sd.tries, retryKey{block, r})
	}
	return sd.persist([]uint32{block}, true)
}

// locate finds the slot of a record.
func locate(list []*sealed, route, recordID string) (sd *sealed, block uint32, entry int, err error) {
	u, block, ok := parseRecordID(recordID)
	if ok {
		for _, sd := range list {
			if sd.head.uuid != u {
				continue
			}
			for i, owed := range sd.head.routes {
				if owed.name == route && sd.has(block, i, recordID) {
					return sd, block, i, nil
				}
			}
		}
	}
	return nil, 0, 0, unknownRecord(route, recordID)
}

func unknownRecord(route, recordID string) error {
	return fmt.Errorf("%w: meter: there is no record %q on route %q: it is settled for good, was merged or sent again under another ID, or never was", sink.ErrUnknownRecord, recordID, route)
}

func (sd *sealed) has(block uint32, entry int, recordID string) bool {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	img, err := sd.load()
	if err != nil {
		return false
	}
	for _, b := range img.slots {
		if b == block {
			return recordID == sd.recordID(block, entry)
		}
	}
	return false
}

// Reopen takes a delivered record into quarantine, because its biller reports that
// it can't bill it after all. One that is in quarantine, or that an operator has
// decided about, stays as it is.
func (l *Ledger) Reopen(route, recordID, reason string) error {
	sd, block, entry, err := locate(l.sealedNow(), route, recordID)
	if err != nil {
		return err
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if _, err := sd.load(); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	r := sd.table[entry]
	switch s := sd.outcomes(block).states[entry]; {
	case s.held() || s != delivered && s.settled():
		// It waits for a decision, or had one that a report does not change.
		l.log.Info("meter: the biller's report changes nothing", "route", route, "record", recordID, "outcome", s.outcome().String(), "reason", reason)
		return nil
	case s != delivered:
		return fmt.Errorf("meter: record %s is %v on route %q: only a delivered one can be taken back", recordID, s.outcome(), route)
	case r < 0:
		return fmt.Errorf("meter: route %q is not configured", route)
	}
	if err := l.hold(sd, r, map[uint32]holding{block: {takenBack, reason}}); err != nil {
		return fmt.Errorf("meter: record not taken back: %w", err)
	}
	return nil
}

// Found is a record with where it stands.
type Found struct {
	sink.Record
	Outcome sink.Outcome
	Held    bool // in quarantine

	state state
	first uint32
}

// Find returns a record whose segment is not folded yet.
func (l *Ledger) Find(route, recordID string) (Found, error) {
	sd, block, entry, err := locate(l.sealedNow(), route, recordID)
	if err != nil {
		return Found{}, err
	}
	sd.mu.Lock()
	defer sd.mu.Unlock()
	if _, err = sd.load(); err != nil {
		return Found{}, fmt.Errorf("meter: %w", err)
	}
	r, err := sd.record(block, entry, 0)
	o := sd.outcomes(block)
	s := o.states[entry]
	return Found{r, s.outcome(), s.held(), s, o.first[entry]}, err
}

// Doubt is a quarantined record of which nobody knows whether it was recorded.
type Doubt struct {
	sink.Record
	Alone bool // no other record of its feature and subject was used within its window
}

// aloneFor is how long after its window a record may be said to have been alone there,
// in seconds: so long what was reported later is kept to be looked at.
const aloneFor = 72 * 3600

// testifies reports whether the segment is needed to tell whether an older record was
// alone in its window. The caller holds mu.
func (sd *sealed) testifies(now time.Time) bool {
	return sd.head.dated && now.Unix() < sd.head.end+aloneFor && slices.ContainsFunc(sd.ledger.routes, func(r Route) bool { return r.Verifies })
}

// Doubts are the quarantined records of a route that are in doubt, oldest first.
func (l *Ledger) Doubts(route int) (doubts []Doubt) {
	for _, sd := range l.sealedNow() {
		var alone map[pair]int
		for _, found := range sd.heldRecords() {
			if found.state != doubtHeld || found.Route != l.routes[route].Name {
				continue
			}
			if alone == nil {
				alone = sd.pairs()
			}
			p := pair{found.Feature, found.Subject}
			own := l.adopt == "" && !sd.head.merged && !sd.head.jumped && !found.Backdated && time.Now().Unix() < sd.head.end+aloneFor && !l.overlapped(sd, p)
			doubts = append(doubts, Doubt{found.Record, own && alone[p] == 1})
		}
	}
	return doubts
}

// overlapped reports whether another segment has a record of p within sd's window, as
// one that was merged or adopted may, or one that was reported later.
func (l *Ledger) overlapped(sd *sealed, p pair) bool {
	for _, other := range l.sealedNow() {
		within := other.head.start < sd.head.end && sd.head.start < other.head.end
		if other != sd && (within || other.head.dated && other.head.start > sd.head.start) && other.pairs()[p] > 0 {
			return true
		}
	}
	return false
}

// pairs counts the segment's records by feature and subject.
func (sd *sealed) pairs() map[pair]int {
	sd.mu.Lock()
	defer sd.mu.Unlock()
	n := make(map[pair]int)
	img, err := sd.load()
	if err != nil {
		return n
	}
	for _, block := range img.slots {
		if feature, subject, _, err := decodeKey(img.key(block)); err == nil {
			n[pair{feature, subject}]++
		}
	}
	return n
}
