package stripesink

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/inprocess/meter/sink"
)

// movedFor is how long Stripe surely knows the key of what was added up: the 24 hours
// that it promises, without one for clocks and transport.
const movedFor = 23 * time.Hour

// late decides about a record whose second Stripe has refused as too early for the
// running period. It may be added up in that period: by the policy, or because the
// period began inside of the record's window, as with a subscription's first usage.
func (u *UsageRecords) late(ctx context.Context, r sink.Record, was payer, refused error) (err error, halt bool) {
	age := recentPeriod
	if u.second(r) > was.contract.start {
		age = 0 // what is known doesn't explain it
	}
	p, err := u.payerOf(ctx, r, age)
	if err != nil {
		return err, !waits(err)
	}
	belongs, now := r.End.Unix() > p.contract.start, time.Now()
	switch {
	case p.item.id != was.item.id:
		return errMoved(was, p), false
	case u.second(r) > p.contract.start && u.adds(r) && !r.Doubt:
		// Refused for a clock that was ahead, and stored under its key.
		return u.add(ctx, r, p, trace{payer: p.item.id, moved: u.second(r), since: now})
	case u.second(r) > p.contract.start:
		return fmt.Errorf("%w; but the running period of %s began before", refused, p.contract.id), false
	case r.Doubt:
		return fmt.Errorf("%w; an earlier attempt may have been in time", refused), false
	case p.item.created >= r.End.Unix():
		return fmt.Errorf("%w; and item %s, which its subject leads to now, did not exist when it was used", refused, p.item.id), false
	case r.Kind != sink.Sum:
		return fmt.Errorf("%w; a level of another time can't be billed", refused), false
	case !belongs && u.cfg.Late != RestampLate:
		return fmt.Errorf("%w; UsageRecordsConfig.Late can have such usage billed in the running period", refused), false
	}
	second := u.registers.spare(now.Unix())
	if second <= p.contract.start {
		return sink.RetryAfter(notSent(sink.ErrNotApplied, "the running period has only just begun"), u.registers.apart()), false
	}
	return u.add(ctx, r, p, trace{payer: p.item.id, moved: second, since: now})
}

// addAgain sends what may have been added up in the running period: the same once
// more, while Stripe knows it again.
func (u *UsageRecords) addAgain(ctx context.Context, r sink.Record, p payer, known trace) (err error, halt bool) {
	if time.Since(known.since) >= movedFor {
		return notSent(sink.ErrRejected, "it may be billed already, in a later period, and Stripe may have forgotten its key"), false
	}
	return u.add(ctx, r, p, known)
}

// add adds a record up at another second than its own. Its key is another, too, for
// Stripe may have stored the refusal under that.
func (u *UsageRecords) add(ctx context.Context, r sink.Record, p payer, to trace) (err error, halt bool) {
	err, halt = u.post(ctx, r, p, addition(r, to.moved, r.ID+"-late"), to)
	if err == nil && to.moved != u.second(r) {
		u.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "usage billed at another time than its own, in the running period",
			slog.String("record", r.ID), slog.String("feature", r.Feature), slog.String("subject", r.Subject),
			slog.String("item", p.item.id), slog.Int64("quantity", r.Quantity),
			slog.Time("from", r.Start), slog.Time("to", r.End), slog.Time("billed_at", time.Unix(to.moved, 0).UTC()))
	}
	return err, halt
}
