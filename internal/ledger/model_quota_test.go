package ledger

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// modelPeriod is that of a subject's quota: what was counted before it was known, and
// the windows from then on.
type modelPeriod struct {
	quota  Quota
	before int64
	since  int64
}

// used is what a subject has counted in windows since a second.
func (w *world) used(subject string, since int64) int64 {
	n := int64(0)
	for _, r := range w.records {
		if r.modelKey == (modelKey{feature: "calls", subject: subject}) && r.start >= since {
			n += r.quantity
		}
	}
	return n + w.active[modelKey{feature: "calls", subject: subject}]
}

// call is held to a quota: that of the month, one that begins with it, or one that
// begins when it is first heard of.
func (w *world) call(subject string, b byte) {
	f, err := w.l.Feature("calls", sink.Sum)
	require.NoError(w.t, err)
	if len(w.active) == 0 {
		w.began = w.l.active.Load().head.start
	}
	first, _ := monthBounds(monthOf(time.Now().Unix()))
	p, known := w.periods[subject]
	if !known {
		p.quota = Quota{Limit: 600, Soft: subject == "s1"}
		switch subject {
		case "s0":
			p.since = first.Unix()
		case "s1":
			p.quota.Start, p.quota.End = first.Unix(), first.AddDate(0, 2, 0).Unix()
			p.since, p.before = w.began, w.used(subject, 0)-w.active[modelKey{feature: "calls", subject: subject}]
		default:
			p.quota.Start, p.quota.End = w.began, first.AddDate(0, 2, 0).Unix()
			if p.since = w.began; p.since == first.Unix() {
				p.since = 0
			}
		}
		w.periods[subject] = p
	}
	n := int64(b % 64)
	held := n + int64(b/64)
	fits := p.before+w.used(subject, p.since)+max(1, held) <= p.quota.Limit
	tally, a, err := f.Reserve(nil, subject, &p.quota, held, true)
	require.NoError(w.t, err)
	switch {
	case fits:
		require.Equal(w.t, Within, a)
	case p.quota.Soft:
		require.Equal(w.t, Beyond, a)
	default:
		require.Equal(w.t, Refused, a)
		return
	}
	require.NoError(w.t, f.plain.find(subject).AddHeld(n, tally, held, true))
	if n > 0 {
		w.active[modelKey{feature: "calls", subject: subject}] += n
	}
}

func (w *world) checkPeriods(op string) {
	f, err := w.l.Feature("calls", sink.Sum)
	require.NoError(w.t, err)
	for subject, p := range w.periods {
		if t := f.Tally(subject); t != nil {
			require.Equal(w.t, p.before+w.used(subject, p.since), t.Standing().Counted, "%s: quota of %s", op, subject)
			require.Zero(w.t, t.Standing().Held, op)
		} else {
			require.True(w.t, subject == "s0" || w.used(subject, 0) == 0, "%s: the period of %s is forgotten", op, subject)
		}
	}
}
