package delivery

import (
	"time"

	"github.com/inprocess/meter/sink"
	"golang.org/x/time/rate"
)

// LimitsOf asks a sink for its limits and fills in the defaults that
// [sink.Limits] documents. A value below zero counts as zero.
func LimitsOf(s sink.Sink) sink.Limits {
	var limits sink.Limits
	if l, ok := s.(sink.Limiter); ok {
		limits = l.Limits()
	}
	if limits.MaxBatch <= 0 {
		limits.MaxBatch = 100
	}
	if limits.Concurrency <= 0 {
		limits.Concurrency = 1
	}
	if limits.Timeout <= 0 {
		limits.Timeout = 30 * time.Second
	}
	if !(limits.Rate > 0) { // NaN, too
		limits.Rate = 0
	}
	limits.MaxAge = max(limits.MaxAge, 0)
	limits.MaxQuantity = max(limits.MaxQuantity, 0)
	limits.DedupeWindow = max(limits.DedupeWindow, 0)
	limits.MinWindow = max(limits.MinWindow, 0)
	limits.Confirm = max(limits.Confirm, 0)
	return limits
}

// pace spreads records over time. Only a route's dispatcher uses it, so that
// what delay promised is still there when spend takes it.
type pace struct{ limiter *rate.Limiter }

// newPace also says how many records a batch may have: not more than a second's
// worth, for a sink may send them one by one.
func newPace(limits sink.Limits) (p pace, batch int) {
	if limits.Rate == 0 {
		return pace{rate.NewLimiter(rate.Inf, 0)}, limits.MaxBatch
	}
	batch = limits.MaxBatch
	if limits.Rate < float64(batch) {
		batch = max(1, int(limits.Rate))
	}
	return pace{rate.NewLimiter(rate.Limit(limits.Rate), batch)}, batch
}

// delay is how long to wait before n records may be taken. It spends nothing:
// the ledger may turn out to have fewer.
func (p pace) delay(now time.Time, n int) time.Duration {
	r := p.limiter.ReserveN(now, n)
	defer r.CancelAt(now)
	return r.DelayFrom(now)
}

// spend counts n records that were taken.
func (p pace) spend(now time.Time, n int) { p.limiter.ReserveN(now, n) }
