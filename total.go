package meter

import (
	"iter"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
)

// Total is a subject's use of a feature in one period: that of its quota, or without
// one the calendar month in UTC. With [Prepaid] it is all that the subject has used since
// something was drawn for it first, and has neither Limit nor Start: bought is what is
// left in the balance, Quantity, Drawn, and what is in doubt, of all processes together.
//
// Concurrency: a plain value.
type Total struct {
	Quantity   int64     // units that this directory has counted
	Held       int64     // units that running calls have reserved of the quota; 0 without one
	Used       int64     // units that others are known to have used of the quota
	Limit      int64     // of all three together; -1: none, or none known since this process began
	Start, End time.Time // the period, [Start, End); zero: since ever, and no end that is known

	// Drawn is how many units this process has drawn of what the subject has bought, and
	// not used, Held included; below 0: it has used more. Without Prepaid it is 0.
	Drawn int64
}

// Left is how many units of the quota are left: Limit less Quantity, Held and Used, not
// below 0; -1 without a quota.
func (t Total) Left() int64 {
	if t.Limit < 0 {
		return -1
	}
	s := ledger.Standing{Counted: t.Quantity, Held: t.Held, Limit: t.Limit, Used: t.Used}
	return s.Left()
}

// Total is what this directory counted for subject in the running period, all
// dimensions together. Other processes count in directories of their own. Of a quota
// it knows what the latest call of the subject was held to.
//
// Blocking: no.
func (f *Feature) Total(subject string) Total {
	if f.prepay != nil {
		return f.prepaidTotal(subject)
	}
	if t := f.ledger.Tally(subject); t != nil {
		return totalOf(t.Standing())
	}
	n, start, end := f.ledger.Total(subject)
	return Total{Quantity: n, Limit: -1, Start: start, End: end}
}

// totalUnder is the Total under a quota that no call may have been held to yet. It
// reserves nothing.
func (f *Feature) totalUnder(subject string, q license.Quota) Total {
	if f.kind != sink.Sum || q.Limit < 0 && f.ledger.Tally(subject) == nil {
		return f.Total(subject)
	}
	return totalOf(f.ledger.Look(subject, boundsOf(&q)))
}

// Totals are the totals of all subjects that used the feature in the running period, or
// have a call running that holds a part of their quota, in no order.
//
// Blocking: no. It takes no lock while an element is looked at.
func (f *Feature) Totals() iter.Seq2[string, Total] {
	return func(yield func(string, Total) bool) {
		for subject := range f.ledger.Subjects() {
			if t := f.Total(subject); t.Quantity != 0 || t.Held != 0 {
				if !yield(subject, t) {
					return
				}
			}
		}
	}
}

func totalOf(s ledger.Standing) Total {
	t := Total{Quantity: s.Counted, Held: s.Held, Used: s.Used, Limit: s.Limit}
	if s.Start != 0 {
		t.Start = time.Unix(s.Start, 0).UTC()
	}
	if s.End != 0 {
		t.End = time.Unix(s.End, 0).UTC()
	}
	return t
}
