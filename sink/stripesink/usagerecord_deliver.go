package stripesink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/inprocess/meter/sink"
	"github.com/stripe/stripe-go/v76"
)

// recentPeriod is how old the knowledge of a billing period may be that a record in
// doubt is sent again by. A period that somebody restarts by hand is noticed after it.
const recentPeriod = 5 * time.Minute

// Deliver sends the records one after another, each as one usage record, and looks up
// whom it bills where that is not known yet. It stops at the first trouble that is not
// the record's own and when ctx ends, as [Sink.Deliver] does.
//
// Blocking: until all are answered, at most 20 s a request and as long for a record of
// the same item that is under way, or until ctx ends.
//
// Errors: nil, or a [*sink.BatchError], or one error if it holds for all. A record is
// [sink.ErrRejected] if Stripe calls it invalid, if its billing period is over and Late
// says so, or if it can't be told whether it is billed already; [sink.ErrNotApplied] if
// it surely was not recorded, also if its feature has no price, or nobody is found to
// bill ([ErrNotFound], [ErrAmbiguous]); anything else is doubt. No error holds the key.
func (u *UsageRecords) Deliver(ctx context.Context, records []sink.Record) error {
	if u.faults != nil {
		return fmt.Errorf("%w: the configuration is faulty: %w", sink.ErrNotApplied, u.faults)
	}
	return each(ctx, records, u.deliver)
}

// deliver sends one record. halt says that the records behind it should wait.
func (u *UsageRecords) deliver(ctx context.Context, r sink.Record) (err error, halt bool) {
	if _, ok := u.cfg.Prices[r.Feature]; !ok {
		return errNoPrice(r.Feature), false
	}
	if err := u.check(r); err != nil {
		return err, false
	}
	known, age := u.traces.of(r), time.Duration(math.MaxInt64)
	if r.Doubt {
		age = recentPeriod
	}
	p, err := u.payerOf(ctx, r, age)
	if err != nil {
		return err, !waits(err)
	}
	end, err := u.turns.take(ctx, p.item.id)
	if err != nil {
		return errUnsent(err), true
	}
	defer end()
	if err, halt := u.guard(ctx, r, p, known); err != nil {
		return err, halt
	}
	if known.moved != 0 {
		return u.addAgain(ctx, r, p, known)
	}
	second := u.second(r)
	if wait := time.Until(time.Unix(second, 0)); wait > 0 {
		return sink.RetryAfter(notSent(sink.ErrNotApplied, "its second has not come yet"), wait), false
	}
	attempt := trace{payer: p.item.id, since: known.since}
	if attempt.since.IsZero() {
		attempt.since = time.Now()
	}
	err, halt = u.post(ctx, r, p, u.request(r, second), attempt)
	switch {
	case errors.Is(err, errGone):
		u.payers.forget(r.Subject)
	case errors.Is(err, errCanceled):
		return u.canceled(ctx, r, p, err)
	case errors.Is(err, errLate):
		return u.late(ctx, r, p, err)
	}
	return err, halt
}

// payerOf returns the item that a record is billed by, not read longer than maxAge ago.
func (u *UsageRecords) payerOf(ctx context.Context, r sink.Record, maxAge time.Duration) (payer, error) {
	p, err := u.payers.item(ctx, r.Subject, u.cfg.Prices[r.Feature], maxAge)
	if err == nil {
		u.ends.add(p.item.id, p.contract.end, p.contract.ceases)
	}
	return p, err
}

// canceled decides about a record whose subscription is canceled: its subject may have
// got another one since it was looked up.
func (u *UsageRecords) canceled(ctx context.Context, r sink.Record, was payer, refused error) (err error, halt bool) {
	u.payers.forget(r.Subject)
	p, err := u.payerOf(ctx, r, time.Duration(math.MaxInt64))
	switch {
	case err == nil && p.item.id != was.item.id:
		return errMoved(was, p), false
	case err != nil && !waits(err):
		return err, true
	}
	return refused, false
}

// second is where a record stands.
func (u *UsageRecords) second(r sink.Record) int64 {
	switch {
	case u.cfg.Increment:
		return timestamp(r)
	case r.Backdated: // the seconds of its window are those of records that were in time
		return u.registers.spare(timestamp(r))
	}
	return u.registers.second(r)
}

// adds reports whether a record is added up at its second, instead of set there.
func (u *UsageRecords) adds(r sink.Record) bool { return u.cfg.Increment || r.Backdated }

// request sets the record's own second, under a key that Stripe has stored no answer
// to, or adds the record up under a key that Stripe knows again.
func (u *UsageRecords) request(r sink.Record, second int64) *stripe.UsageRecordParams {
	if u.adds(r) {
		return addition(r, second, r.ID)
	}
	params := addition(r, second, r.ID+"-"+rand.Text())
	params.Action = stripe.String(stripe.UsageRecordActionSet)
	return params
}

func addition(r sink.Record, second int64, key string) *stripe.UsageRecordParams {
	params := &stripe.UsageRecordParams{
		Action:    stripe.String(stripe.UsageRecordActionIncrement),
		Quantity:  stripe.Int64(r.Quantity),
		Timestamp: stripe.Int64(second),
	}
	params.IdempotencyKey = stripe.String(key)
	return params
}

// post makes one request and judges it. attempt is what to remember if it may have
// been recorded.
func (u *UsageRecords) post(ctx context.Context, r sink.Record, p payer, params *stripe.UsageRecordParams, attempt trace) (err error, halt bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, exchange := stripeapi.Watch(ctx)
	params.Context, params.SubscriptionItem = ctx, stripe.String(p.item.id)
	made, err := u.records.New(params)
	a := answer{Exchange: exchange, err: err, made: usageRecord, at: *params.Timestamp, id: r.ID, key: u.cfg.Key}
	if made != nil {
		a.object = made.Object
	}
	err, halt = classify(a)
	u.traces.note(r, attempt, err)
	return err, halt
}

func errNoPrice(feature string) error {
	return fmt.Errorf("%w: stripesink: no Stripe price for feature %q: its counts are kept; add it to UsageRecordsConfig.Prices, or keep its records off this route by Route.Match",
		sink.ErrNotApplied, feature)
}

func errMoved(from, to payer) error {
	return notSent(sink.ErrNotApplied, "its subject has just moved from item %s to %s", from.item.id, to.item.id)
}

func notSent(outcome error, format string, args ...any) error {
	return fmt.Errorf("%w: stripesink: not sent: %s", outcome, fmt.Sprintf(format, args...))
}
