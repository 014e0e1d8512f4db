package delivery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
)

// verdict is what a sink's answer means.
type verdict struct {
	results   []ledger.Result // one per record
	count     [sink.Superseded + 1]int
	err       error         // the first record that failed; nil: all delivered
	refusal   error         // the first record that was rejected
	postponed int           // records that wait for a reason of their own
	progress  bool          // the sink made up its mind about a record: it works
	delay     time.Duration // that the whole route shall rest, as the sink asked
}

// outcome sums up in one word.
func (v *verdict) outcome() string {
	for o, n := range v.count {
		if n == len(v.results) {
			return sink.Outcome(o).String()
		}
	}
	return "mixed"
}

// judge reads a sink's answer. What it cannot read is doubt, and so is an error
// whose own methods panic.
func judge(records []sink.Record, err error, now time.Time) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			riddle := fmt.Errorf("sink returned a %T that %s when it was looked at", err, panicked(p))
			v = weigh(records, slices.Repeat([]error{riddle}, len(records)), false, now)
		}
	}()
	errs, apart := spread(err, len(records))
	v = weigh(records, errs, apart, now)
	v.delay = routeDelay(err, errs, apart, &v)
	return v
}

// weigh turns an answer per record into results.
func weigh(records []sink.Record, errs []error, apart bool, now time.Time) verdict {
	v := verdict{results: make([]ledger.Result, len(records))}
	for i, err := range errs {
		outcome := outcomeOf(err)
		v.results[i].Outcome = outcome
		v.count[outcome]++
		if err != nil {
			v.results[i].Reason = text(err)
			v.results[i].Postponed = apart && outcome == sink.Pending && errors.Is(err, sink.ErrPostponed)
			if v.results[i].Postponed {
				v.postponed++
			}
			if v.err == nil {
				v.err = err
			}
			if v.refusal == nil && outcome == sink.Rejected {
				v.refusal = err
			}
		}
	}
	v.progress = v.count[sink.Delivered]+v.count[sink.Rejected]+v.postponed > 0
	for i := range v.results {
		if final(v.results[i].Outcome) {
			continue
		}
		var wait time.Duration
		if apart {
			wait = sink.RetryDelay(errs[i])
		}
		// A batch that failed as a whole says nothing about its records: the
		// route rests, and Flush may try them again at once.
		if v.progress || records[i].Attempt >= stepAside {
			wait = max(wait, recordPause(records[i].Attempt))
		}
		if wait > 0 {
			v.results[i].NotBefore = now.Add(wait)
		}
	}
	return v
}

func final(o sink.Outcome) bool { return o == sink.Delivered || o == sink.Rejected }

// outcomeOf is what err says about one record. An error that claims to be both
// final and not applied contradicts itself.
func outcomeOf(err error) sink.Outcome {
	if err == nil {
		return sink.Delivered
	}
	rejected, notApplied := errors.Is(err, sink.ErrRejected), errors.Is(err, sink.ErrNotApplied)
	switch {
	case rejected == notApplied:
		return sink.InDoubt
	case rejected:
		return sink.Rejected
	default:
		return sink.Pending
	}
}

// spread says what err, returned for n records, means for each; apart when each
// has an answer of its own. An answer that cannot be assigned becomes an error
// without its chain, so that the ErrNotApplied of one entry does not speak for all.
func spread(err error, n int) (errs []error, apart bool) {
	batch, found := errors.AsType[*sink.BatchError](err)
	switch {
	case !found:
		return slices.Repeat([]error{err}, n), false
	case !alone(err, batch):
		err = fmt.Errorf("sink returned a BatchError beside other errors: %s", text(err))
		return slices.Repeat([]error{err}, n), false
	case batch == nil || len(batch.Errs) != n:
		err = fmt.Errorf("sink returned a BatchError that has not one entry for each of %d: %s", n, text(err))
		return slices.Repeat([]error{err}, n), false
	}
	errs = slices.Clone(batch.Errs)
	for i, entry := range errs {
		if _, nested := errors.AsType[*sink.BatchError](entry); nested {
			errs[i] = fmt.Errorf("sink returned a BatchError within a BatchError: %s", text(entry))
		}
	}
	return errs, true
}

// alone reports whether err is batch, wrapped any number of times and joined
// with nothing else.
func alone(err error, batch *sink.BatchError) bool {
	for {
		switch e := err.(type) {
		case *sink.BatchError:
			return e == batch
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			inner := e.Unwrap()
			if len(inner) != 1 {
				return false
			}
			err = inner[0]
		default:
			return false
		}
	}
}

// routeDelay is how long the sink wants the whole route to rest. A delay around
// a BatchError is meant for the route; those of its entries are for their records,
// unless most records failed and every one of them came with a delay: then the
// sink is overrun, and the next batch would only meet the shortest of these.
func routeDelay(err error, errs []error, apart bool, v *verdict) time.Duration {
	total := sink.RetryDelay(err)
	if !apart {
		return total
	}
	var longest, failed = time.Duration(0), 0
	shortest := sink.Forever
	for i, entry := range errs {
		delay := sink.RetryDelay(entry)
		longest = max(longest, delay)
		if !final(v.results[i].Outcome) && !v.results[i].Postponed {
			failed++
			shortest = min(shortest, delay)
		}
	}
	switch {
	case total > longest:
		return total
	case failed > 0 && 2*failed > len(errs)-v.postponed:
		return shortest
	}
	return 0
}

// text is err's message, fit for a log line or a quarantine.
func text(err error) string {
	const most = 1000
	s := message(err)
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// message is what err says of itself, or that its Error method panics.
func message(err error) (s string) {
	defer func() {
		if p := recover(); p != nil {
			s = fmt.Sprintf("a %T whose Error method panicked", err)
		}
	}()
	return err.Error()
}
