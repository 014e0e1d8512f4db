package ledger

import (
	"math"
	"time"

	"github.com/inprocess/meter/sink"
)

// monthOf numbers calendar months in UTC.
func monthOf(second int64) int32 {
	t := time.Unix(second, 0).UTC()
	return int32(t.Year())*12 + int32(t.Month()) - 1
}

func monthBounds(month int32) (start, end time.Time) {
	start = time.Date(int(month/12), time.Month(month%12)+1, 1, 0, 0, 0, 0, time.UTC)
	return start, start.AddDate(0, 1, 0)
}

// combine adds a later quantity to an earlier one.
func combine(kind sink.Kind, earlier, later int64) int64 {
	switch kind {
	case sink.Max:
		return max(earlier, later)
	case sink.Last:
		return later
	}
	if earlier > math.MaxInt64-later {
		return math.MaxInt64
	}
	return earlier + later
}

// note adds a sealed quantity to a series' total if it belongs to the running
// month, and begins a new month with its first one. The caller holds totalsMu.
func (l *Ledger) note(s *Series, month int32, at, quantity int64) {
	if month > l.totalsMonth {
		l.totalsMonth = month
		clear(l.lastAt)
		for _, f := range l.featuresNow() {
			f.plain.each(func(s *Series) { s.total = 0 })
			f.dimensioned.each(func(s *Series) { s.total = 0 })
		}
	}
	if month == l.totalsMonth && s.feature.kind == sink.Last {
		// Recovery and adoption meet windows in any order.
		if at < l.lastAt[s] {
			return
		}
		l.lastAt[s] = at
	}
	if month == l.totalsMonth {
		s.total = combine(s.feature.kind, s.total, quantity)
	}
}
