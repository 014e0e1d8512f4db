package stripesink

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/inprocess/meter/sink"
)

// Reconcile compares the records of a ledger with the totals of Stripe's usage records,
// per subscription item. It only reads: what to do about a difference is a person's
// decision.
//
// Stripe tells no less than the total of a billing period, and customers have periods
// of their own. So what is compared is, for each item with usage in [start, end), the
// whole of the period in which that lies: Start and End of a line. An item of which it
// touches two periods is a line with an error. For all customers, ask for a few hours,
// the last ones of yesterday say, and give records that reach back to the begin of the
// longest period, a month or a year ago.
//
// records are those of the sink's route with their outcomes, as Meter.Records yields
// them; they are ranged over twice. They must be those of all processes that bill these
// customers: what a ledger does not have shows as a difference. A record belongs to the second at which it stands
// with Stripe, which is in its window.
//
// Stripe's total is final when the period is over, and unstable while it runs. What
// was billed late, in another period than that of its second, is missing in its own and
// too much in the other; the log names each such record. So is what Stripe has billed by
// another item, before a subscription was changed. A price that bills the last level
// ever has the one of an earlier period until there is one in this.
//
// It makes two requests per item as a rule, for at most 5 items a second in live mode
// and 1 in test mode. Stripe allows reads in proportion to payments (500 a payment in 30
// days, at least 10,000 a month).
//
// Blocking: until all are read or ctx ends; 10,000 items take over half an hour.
//
// Errors: the configuration's; records that can't be ranged over twice; the end of ctx,
// with the lines that were read till then. An item whose total can't be read is a line
// with an error, and the others go on. No error holds the key.
func (u *UsageRecords) Reconcile(ctx context.Context, records iter.Seq2[sink.Record, sink.Outcome], start, end time.Time) (Reconciliation, error) {
	start, end = start.UTC(), end.UTC()
	if u.faults != nil {
		return Reconciliation{Start: start, End: end}, u.faults
	}
	pace := paceOf(u.cfg.Key, liveLookups/4, testLookups/4) // two lookups each leave half for deliveries
	c := reconciler{u.second, func(ctx context.Context, r sink.Record) account {
		a := account{subject: r.Subject, start: start.Unix(), end: end.Unix(), way: way{kind: r.Kind}}
		if a.err = turn(ctx, pace); a.err == nil {
			a.err = u.settle(ctx, r, &a)
		}
		return a
	}}
	return c.run(ctx, records, start, end)
}

// settle asks for the period of a record's item in which the account's times lie.
// Stripe tells the period and its total at once.
func (u *UsageRecords) settle(ctx context.Context, r sink.Record, a *account) error {
	prices, ok := u.cfg.Prices[r.Feature]
	if !ok {
		return errNoPrice(r.Feature)
	}
	p, err := u.payers.item(ctx, r.Subject, prices, recentPeriod)
	if err != nil {
		return err
	}
	total, period, err := u.totalOf(ctx, p, a.start, a.end)
	if err != nil {
		return err
	}
	a.total, a.start, a.end = p.item.id, period.from, period.to
	a.read = func(context.Context) (int64, error) { return total, nil }
	return nil
}

// span is a billing period, in seconds: [from, to).
type span struct{ from, to int64 }

func (s span) holds(start, end int64) bool   { return s.from <= start && end <= s.to }
func (s span) touches(start, end int64) bool { return s.from < end && start < s.to }

// totalOf is what an item has in the period that holds [start, end).
func (u *UsageRecords) totalOf(ctx context.Context, p payer, start, end int64) (total int64, in span, err error) {
	running, found := span{p.contract.start, p.contract.end}, false
	err = eachPage("periods of "+p.item.id, func(after string) (last string, more bool, err error) {
		page, err := u.periods(ctx, p.item.id, after)
		if err != nil {
			return "", false, err
		}
		for _, s := range page.Data {
			if s == nil {
				continue
			}
			last = s.ID
			one := running // whose bounds Stripe may leave out
			if from, to := bounds(s.Period); from != 0 && to != math.MaxInt64 {
				one = span{from, to}
			}
			switch {
			case one.holds(start, end):
				total, in, found = s.TotalUsage, one, true
				return "", false, nil
			case one.touches(start, end):
				return "", false, fmt.Errorf("stripesink: item %s begins or ends a billing period at %v or %v: ask for usage of one period",
					p.item.id, time.Unix(one.from, 0).UTC(), time.Unix(one.to, 0).UTC())
			}
		}
		return last, page.HasMore, nil
	})
	switch {
	case err != nil || found:
		return total, in, err
	case running.holds(start, end):
		return 0, running, nil // Stripe need not list a period without usage
	}
	return 0, span{}, fmt.Errorf("stripesink: item %s has no billing period that holds the whole of [%v, %v)",
		p.item.id, time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC())
}
