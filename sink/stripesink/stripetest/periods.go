package stripetest

import (
	"fmt"
	"time"
)

// period is one billing period: usage in [start, end) is on its invoice.
type period struct{ start, end time.Time }

func (p period) holds(second int64) bool {
	return second >= p.start.Unix() && second < p.end.Unix()
}

// roll ends the periods of sub that are over by now.
func (s *Server) roll(sub *subscription) *subscription {
	for now := s.now(); sub.Status != "canceled"; {
		if at := sub.CancelAt; !at.IsZero() && !at.After(now) && !at.After(sub.End) {
			s.cancel(sub, at)
			break
		}
		if now.Before(sub.End) {
			break
		}
		sub.past = append(sub.past, sub.current())
		if sub.CancelAtPeriodEnd {
			s.cancel(sub, sub.End)
			break
		}
		p := s.prices.byID[sub.Items[0].Price]
		sub.Start = sub.End
		for n := int64(1); !sub.End.After(sub.Start); n++ {
			sub.End = p.after(sub.anchor, n)
		}
	}
	return sub
}

// setPeriod gives sub its running period, by default one interval of its price from
// now, and the anchor from which the next ones are counted.
func (sub *subscription) setPeriod(p *price, before period, now time.Time) {
	if sub.Start.IsZero() {
		sub.Start = now
	}
	sub.Start = sub.Start.UTC().Truncate(time.Second)
	regular := p.after(sub.Start, 1)
	if sub.End.IsZero() {
		sub.End = regular
	}
	sub.End = sub.End.UTC().Truncate(time.Second)
	if !sub.End.After(sub.Start) {
		panic(fmt.Sprintf("stripetest: subscription %s: its period ends before it starts", sub.ID))
	}
	switch {
	case sub.current() == before: // so the anchor holds
	case sub.End.Equal(regular):
		sub.anchor = sub.Start
	default:
		sub.anchor = sub.End
	}
}

func (sub *subscription) current() period { return period{sub.Start, sub.End} }

// periods are all of sub, newest first.
func (sub *subscription) periods() []period {
	var all []period
	if n := len(sub.past); n == 0 || sub.past[n-1] != sub.current() {
		all = append(all, sub.current())
	}
	for i := len(sub.past) - 1; i >= 0; i-- {
		all = append(all, sub.past[i])
	}
	return all
}

// after is n intervals of the price after an anchor. A day that the month lacks is
// its last one, as with Stripe.
func (p *price) after(anchor time.Time, n int64) time.Time {
	count := int(n * p.IntervalCount)
	switch p.Interval {
	case "day":
		return anchor.AddDate(0, 0, count)
	case "week":
		return anchor.AddDate(0, 0, 7*count)
	case "year":
		count *= 12
	}
	t := anchor.AddDate(0, count, 0)
	if t.Day() != anchor.Day() {
		t = t.AddDate(0, 0, -t.Day()) // overflowed into the next month
	}
	return t
}
