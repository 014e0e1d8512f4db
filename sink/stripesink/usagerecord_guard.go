package stripesink

import (
	"context"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
)

// check rejects records that no item could bill as they are.
func (u *UsageRecords) check(r sink.Record) error {
	switch {
	case r.ID == "" || len(r.ID) > maxName:
		return notSent(sink.ErrRejected, "the record's ID has %d characters; the sink takes 1 to %d", len(r.ID), maxName)
	case r.Kind > sink.Last || u.cfg.Increment && r.Kind != sink.Sum:
		return notSent(sink.ErrRejected, "usage records that are incremented add up, so they can't bill kind %v of feature %q", r.Kind, r.Feature)
	case r.Quantity < 0 || r.Kind == sink.Sum && r.Quantity == 0:
		return notSent(sink.ErrRejected, "quantity %d of feature %q, kind %v, is too low", r.Quantity, r.Feature, r.Kind)
	case u.cfg.Increment:
		return nil
	case len(r.Dimensions) > 0:
		return notSent(sink.ErrRejected, "feature %q has dimensions, and an item keeps one quantity for each second: the series would overwrite each other; declare a feature of its own for each, or set UsageRecordsConfig.Increment", r.Feature)
	case r.Instance < 0 || r.Instance >= u.cfg.Instances:
		return notSent(sink.ErrNotApplied, "the record is of instance %d, and UsageRecordsConfig.Instances is %d: raise it, in all processes, or correct meter.Config.Instance", r.Instance, u.cfg.Instances)
	}
	return nil
}

// guard refuses what would bill p twice or not at all.
func (u *UsageRecords) guard(ctx context.Context, r sink.Record, p payer, known trace) (err error, halt bool) {
	second := u.second(r)
	if !u.adds(r) {
		if p.item.thresholds || p.contract.thresholds {
			return notSent(sink.ErrNotApplied, "item %s has billing thresholds, so Stripe takes only increments: set UsageRecordsConfig.Increment", p.item.id), false
		}
		at := place{p.item.id, second}
		if other, taken, _ := u.taken.PeekOrAdd(at, r.Subject); taken && other != r.Subject {
			return notSent(sink.ErrRejected, "item %s has usage of subject %q at the same second, which it would overwrite: identify each customer in one way only, or set UsageRecordsConfig.Increment",
				p.item.id, stripeapi.Clean(other, u.cfg.Key)), false
		}
	}
	if !r.Doubt {
		return nil, false
	}
	switch {
	case known.payer != "" && known.payer != p.item.id:
		return notSent(sink.ErrRejected, "it may be billed by item %s already, and its subject leads to %s now", known.payer, p.item.id), false
	case known.payer == "" && p.item.created > second:
		return notSent(sink.ErrRejected, "it may be billed already, by an item before %s, which is younger", p.item.id), false
	case r.Backdated && !u.cfg.Increment && (known.payer == "" || time.Since(known.since) >= movedFor):
		return notSent(sink.ErrRejected, "it may be billed already, and Stripe may have forgotten its key, or the process was started anew since"), false
	case u.adds(r) || known.moved != 0:
		return nil, false // Stripe knows its key again
	case p.contract.start >= second:
		return notSent(sink.ErrRejected, "it may be billed already, and its billing period is over: Stripe might take it for new usage"), false
	}
	if known.payer == "" {
		if err, halt := u.guardUnknown(ctx, r, p); err != nil {
			return err, halt
		}
	}
	ends := time.Unix(p.contract.end, 0)
	if left := time.Until(ends); left < requestTimeout {
		return sink.RetryAfter(notSent(sink.ErrNotApplied, "it may be billed already, and its billing period ends at %v, before an answer is sure", ends.UTC()), max(left, 0)+rollTime), false
	}
	return nil, false
}

// guardUnknown refuses a record in doubt of whose attempts nothing is remembered, unless
// they can have been on p only: Prices or a subscription's metadata may have been others
// then.
func (u *UsageRecords) guardUnknown(ctx context.Context, r sink.Record, p payer) (err error, halt bool) {
	sole, err := u.payers.sole(ctx, r.Subject)
	switch {
	case err != nil:
		return err, !waits(err)
	case sole != p.item.id:
		return notSent(sink.ErrRejected, "it may be billed already, and not by item %s: which one its subject led to before the restart is not known", p.item.id), false
	}
	u.traces.open.Add(r.ID, trace{payer: p.item.id})
	return nil, false
}
