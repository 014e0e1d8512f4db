package stripesink

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/usagerecordsummary"
)

// Usage is what Stripe has of a subject's usage records, in the billing periods that
// [start, end) touches, each as a whole: Stripe tells no more than the total of a
// period, by the price's aggregation. For usage of one period give a time inside of it.
// It is what the subscription item that bills the subject now has, and unstable until
// its period ends.
//
// Blocking: one or two requests as a rule, at most 20 s each, within ctx.
//
// Errors: the configuration's, a feature without a price, [ErrNotFound],
// [ErrAmbiguous], a total over an int64, and those of the requests. No error holds the
// key.
func (u *UsageRecords) Usage(ctx context.Context, feature, subject string, start, end time.Time) (int64, error) {
	if u.faults != nil {
		return 0, u.faults
	}
	prices, ok := u.cfg.Prices[feature]
	if !ok {
		return 0, errNoPrice(feature)
	}
	if !end.After(start) {
		return 0, errNoTime(start, end)
	}
	p, err := u.payers.item(ctx, subject, prices, math.MaxInt64)
	if err != nil {
		return 0, err
	}
	var total int64
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
			from, to := bounds(s.Period)
			if from >= end.Unix() || to <= start.Unix() {
				continue
			}
			if s.TotalUsage > math.MaxInt64-total {
				return "", false, fmt.Errorf("stripesink: the usage of %s is over %d", p.item.id, int64(math.MaxInt64))
			}
			total += s.TotalUsage
		}
		return last, page.HasMore, nil
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}

// periods reads a page of an item's totals, newest period first.
func (u *UsageRecords) periods(ctx context.Context, item, after string) (*stripe.UsageRecordSummaryList, error) {
	var list *usagerecordsummary.Iter
	found, err := u.payers.read(ctx, "reading the usage of "+item, "list", "usage records", func(ctx context.Context) error {
		list = u.summaries.List(&stripe.UsageRecordSummaryListParams{ListParams: pageParams(ctx, after), SubscriptionItem: stripe.String(item)})
		return list.Err()
	})
	if err == nil && !found {
		err = fmt.Errorf("stripesink: reading the usage of %s: Stripe has no such item", item)
	}
	if err != nil {
		return nil, err
	}
	return list.UsageRecordSummaryList(), nil
}

// bounds are those of a period, which Stripe leaves out where it has none.
func bounds(p *stripe.Period) (from, to int64) {
	if p == nil {
		return 0, math.MaxInt64
	}
	if p.End == 0 {
		return p.Start, math.MaxInt64
	}
	return p.Start, p.End
}
