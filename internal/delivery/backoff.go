package delivery

import (
	"math/rand/v2"
	"time"
)

const (
	firstPause  = 500 * time.Millisecond // after a route's first failure in a row
	longestWait = 5 * time.Minute        // between two tries of a failing route
	firstDefer  = time.Second            // after a record's first failure amid successes
	longestAway = 10 * time.Minute       // that a failing record lets others go first

	// stepAside is the attempt from which on a record that fails lets others go
	// first, lest one record that a sink cannot stand blocks its route for good.
	// It comes late, and longestAway is short, because an outage should drag few
	// records into doubt: each one that steps aside makes the route try another.
	stepAside = 4

	// longestAsk is how long a Flush without a deadline waits for a sink that wants to
	// be left alone.
	longestAsk = time.Minute

	// routeDown is how many failures in a row end a Flush.
	routeDown = 3
)

// routePause is how long a route rests after so many failures in a row.
func routePause(failures int) time.Duration { return jitter(double(firstPause, failures, longestWait)) }

// recordPause is how long a record rests after its attempt-th attempt failed.
func recordPause(attempt int) time.Duration {
	return jitter(double(firstDefer, attempt, longestAway))
}

// double is first doubled n-1 times, at most limit.
func double(first time.Duration, n int, limit time.Duration) time.Duration {
	d := first
	for ; n > 1 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}

// jitter is between half of d and d: enough to spread a fleet, yet never at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
