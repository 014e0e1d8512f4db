package cache

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// strangers is the part of the budget for queries that were never allowed.
const strangers = 0.75

// budget bounds the calls to the Checker.
type budget struct {
	all, strangers *rate.Limiter
}

func newBudget(perSecond float64) budget {
	return budget{limiter(perSecond), limiter(perSecond * strangers)}
}

func limiter(perSecond float64) *rate.Limiter {
	burst := math.Ceil(min(perSecond, math.MaxInt32))
	return rate.NewLimiter(min(rate.Limit(perSecond), rate.Inf), int(max(burst, 1)))
}

// take takes one call, for a customer or for somebody who may be none.
func (b budget) take(now time.Time, customer bool) bool {
	return (customer || b.strangers.AllowN(now, 1)) && b.all.AllowN(now, 1)
}
