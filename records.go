package meter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

// QuarantinedRecord is a record that waits for an operator, with its route.
//
// Concurrency: read-only, Dimensions included.
type QuarantinedRecord struct {
	sink.Record
	Route        string
	Reason       string    // what the sink said, or why it was not asked
	FirstAttempt time.Time // zero: never attempted, or nobody knows when
}

// Quarantine yields the records that only an operator can decide about, oldest
// first: sent and perhaps recorded (InDoubt), or refused for good (Rejected).
//
// Blocking: reads the directory as it goes.
func (m *Meter) Quarantine() iter.Seq2[QuarantinedRecord, sink.Outcome] {
	return func(yield func(QuarantinedRecord, sink.Outcome) bool) {
		for r, outcome := range m.ledger.Quarantine() {
			if !yield(QuarantinedRecord(r), outcome) {
				return
			}
		}
	}
}

// Settle decides about a quarantined record: Delivered (the biller has it), Voided
// (written off), Rejected (leave it), or Pending (send it again: bills twice if
// the biller has it after all). A delivered record whose window is not settled for
// good can be voided, too, and one that is pending can be written off. note says why, for the audit; put no secret into it.
//
// Voiding what the biller has or may have asks the sink first, if it is a
// sink.Voider, to take it back.
//
// Guarantee: durable once it returns nil.
// Blocking: two fsyncs, behind a merge of the route's records that is under way;
// voiding may use the network, until ctx ends.
// Errors: sink.ErrUnknownRecord, also for a record that was merged into another before
// it was ever sent; a record that waits for no decision; an outcome
// that can't be decided; what the sink says that can't take a record back, after
// which nothing has changed; ErrClosed.
func (m *Meter) Settle(ctx context.Context, route, recordID string, as sink.Outcome, note string) error {
	if m.closing.Load() {
		return ErrClosed
	}
	switch as {
	case sink.Voided:
		return m.void(ctx, route, recordID, note)
	case sink.Delivered, sink.Rejected, sink.Pending:
	default:
		return fmt.Errorf("meter: settle: %v is no decision; use Delivered, Voided, Rejected or Pending", as)
	}
	return m.unfound(route, m.ledger.Settle(ctx, route, recordID, as, note))
}

// unfound says of a record that was not found if its route is not even there.
func (m *Meter) unfound(routeName string, err error) error {
	if !errors.Is(err, sink.ErrUnknownRecord) {
		return err
	}
	if _, unknown := m.route(routeName); unknown != nil {
		return errors.Join(err, unknown)
	}
	return err
}

// Records yields every record that a route owed or owes, of the windows that began
// in [start, end), with its outcome: for disputes, and to compare with what the
// biller has. The running window is not among them: Flush ends it.
//
// Blocking: reads the directory as it goes; no network. Counting and delivery go on
// meanwhile.
// Errors: at once, unless Config.Retain has kept everything since start;
// ErrClosed. A file that can't be read is left out and shows in Health.
func (m *Meter) Records(route string, start, end time.Time) (iter.Seq2[sink.Record, sink.Outcome], error) {
	if m.closing.Load() {
		return nil, ErrClosed
	}
	if _, err := m.route(route); err != nil {
		return nil, err
	}
	switch {
	case !start.Before(end):
		return nil, fmt.Errorf("meter: records from %v to %v: the end must be after the start", start.UTC(), end.UTC())
	case m.cfg.Dir == InMemory:
		return nil, errors.New("meter: a meter in memory retains no delivered records: give it a Dir, and Retain")
	}
	return m.ledger.Records(route, start, end)
}

// Reopen takes a delivered record into quarantine as Rejected: its biller took it,
// and reports now that it can't bill it. Settled as Pending, it is sent again under
// another ID, for the biller knows the old one. A record is there for at least as
// long as its sink's Limits say in Confirm, unless MaxDisk is too small for that,
// which Health says. For one that is in quarantine already, or that an operator has
// decided about, it does nothing.
//
// Guarantee: durable once it returns nil.
// Blocking: one fsync.
// Errors: sink.ErrUnknownRecord: there is no such record, or its window is settled
// for good; a record that was not delivered; ErrClosed.
func (m *Meter) Reopen(ctx context.Context, route, recordID, reason string) error {
	if m.closing.Load() {
		return ErrClosed
	}
	if _, err := m.route(route); err != nil {
		return err
	}
	return m.ledger.Reopen(route, recordID, reason)
}

// route finds a configured route.
func (m *Meter) route(name string) (route, error) {
	for _, r := range m.routes {
		if r.name == name {
			return r, nil
		}
	}
	return route{}, fmt.Errorf("meter: there is no route %q in Config.Sinks", name)
}

// void settles a record as voided, after its biller has taken it back if it has it or
// may have it.
func (m *Meter) void(ctx context.Context, routeName, recordID, note string) error {
	r, err := m.ledger.Find(routeName, recordID)
	if err != nil {
		return m.unfound(routeName, err)
	}
	doubt := r.Outcome == sink.InDoubt && r.Held // else it is still being sent
	if at, err := m.route(routeName); err == nil && (doubt || r.Outcome == sink.Delivered) {
		if err := at.takeBack(ctx, r); err != nil {
			return err
		}
	}
	return m.ledger.SettleFound(routeName, r, sink.Voided, note)
}

// takeBack asks the sink to take a record back.
func (r route) takeBack(ctx context.Context, record ledger.Found) (err error) {
	voider, ok := r.sink.(sink.Voider)
	switch {
	case !ok && record.Outcome == sink.Delivered:
		return fmt.Errorf("meter: the sink of route %q can't take record %s back: correct it at the biller", r.name, record.ID)
	case !ok:
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("meter: the sink of route %q panicked in Void: %v", r.name, p)
		}
	}()
	if err := voider.Void(ctx, record.Record); err != nil {
		return fmt.Errorf("meter: record %s is not voided: its biller does not take it back (to write it off here all the same, settle it as %v): %w", record.ID, sink.Rejected, err)
	}
	return nil
}
