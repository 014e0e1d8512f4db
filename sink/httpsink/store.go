package httpsink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/inprocess/meter/sink"
)

// Idempotent is a store made of a function that keeps what [sink.Sink] promises with a
// DedupeWindow without end: a record whose ID it has already is not stored again, and
// counts as success. Only one transaction for both the record and its ID can keep that
// promise across a crash. In SQL the ID is the primary key:
//
//	INSERT INTO usage (id, …) VALUES (…) ON CONFLICT (id) DO NOTHING
//
// A function that asks first and stores then, or that remembers IDs in memory, doesn't.
//
// store gets up to 1,000 records and answers as [sink.Sink].Deliver does: nil once all
// are committed, a [*sink.BatchError] to answer for each, or one error for all. It
// should answer [sink.ErrRejected] for an ID that it has with another body.
//
// Concurrency: store is called from up to 16 goroutines, never twice at once for one ID
// nor for one subject and feature.
func Idempotent(store func(ctx context.Context, records []sink.Record) error) sink.Sink {
	if store == nil {
		return nil
	}
	return idempotent{store}
}

type idempotent struct {
	store func(ctx context.Context, records []sink.Record) error
}

func (i idempotent) Deliver(ctx context.Context, records []sink.Record) error {
	return i.store(ctx, records)
}

func (idempotent) Limits() sink.Limits {
	return sink.Limits{MaxBatch: mostBatch, Concurrency: 16, DedupeWindow: sink.Forever}
}

// store calls a sink as its limits ask.
type store struct {
	sink   sink.Sink
	limits sink.Limits
	kinds  []sink.Kind // nil: every kind
	slots  chan struct{}
}

func newStore(s sink.Sink) *store {
	st := &store{sink: s, limits: limitsOf(s)}
	if c, ok := s.(sink.Combiner); ok {
		st.kinds = c.Kinds()
	}
	st.slots = make(chan struct{}, st.limits.Concurrency)
	return st
}

func limitsOf(s sink.Sink) (l sink.Limits) {
	if limiter, ok := s.(sink.Limiter); ok {
		l = limiter.Limits()
	}
	if l.MaxBatch <= 0 {
		l.MaxBatch = defaultBatch
	}
	if l.Concurrency <= 0 {
		l.Concurrency = 1
	}
	if l.Timeout <= 0 {
		l.Timeout = defaultTimeout
	}
	if l.MaxQuantity <= 0 {
		l.MaxQuantity = maxQuantity
	}
	return l
}

// refuse says why the store would never take r.
func (st *store) refuse(r sink.Record) error {
	switch {
	case st.kinds != nil && !slices.Contains(st.kinds, r.Kind):
		return fmt.Errorf("kind %v is not taken here", r.Kind)
	case r.Quantity > st.limits.MaxQuantity:
		return fmt.Errorf("a quantity of %d is more than the %d taken here", r.Quantity, st.limits.MaxQuantity)
	case st.limits.MaxAge > 0 && time.Since(r.Start) > st.limits.MaxAge:
		return fmt.Errorf("it is older than the %v taken here", st.limits.MaxAge)
	}
	return nil
}

// put stores records and returns an error for each. A request's end does not end it: what
// the sender has given up may as well be stored, once.
func (st *store) put(ctx context.Context, records []sink.Record) []error {
	errs := make([]error, 0, len(records))
	for batch := range slices.Chunk(records, st.limits.MaxBatch) {
		errs = append(errs, st.deliver(ctx, batch)...)
	}
	return errs
}

func (st *store) deliver(ctx context.Context, batch []sink.Record) []error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), st.limits.Timeout)
	defer cancel()
	select {
	case st.slots <- struct{}{}:
	case <-ctx.Done():
		return slices.Repeat([]error{fmt.Errorf("%w: the store is busy", sink.ErrNotApplied)}, len(batch))
	}
	defer func() { <-st.slots }()
	return spread(st.sink.Deliver(ctx, batch), len(batch))
}

// spread returns an error for each of n records. An answer that can't be assigned loses
// its chain, for the ErrNotApplied of one entry must not speak for all.
func spread(err error, n int) []error {
	batch, found := errors.AsType[*sink.BatchError](err)
	if !found {
		return slices.Repeat([]error{err}, n)
	}
	if !alone(err, batch) || batch == nil || len(batch.Errs) != n {
		return slices.Repeat([]error{fmt.Errorf("the store's error has not one entry for each of %d records: %s", n, cut(fmt.Sprint(err)))}, n)
	}
	errs := slices.Clone(batch.Errs)
	for i, entry := range errs {
		if _, nested := errors.AsType[*sink.BatchError](entry); nested {
			errs[i] = fmt.Errorf("the store's error has a BatchError within a BatchError: %s", cut(fmt.Sprint(entry)))
		}
	}
	return errs
}

// alone reports whether err is batch, wrapped any number of times and joined with
// nothing else.
func alone(err error, batch *sink.BatchError) bool {
	for err != nil && err != error(batch) { //nolint:errorlint // the chain is walked by hand
		err = errors.Unwrap(err) // nil for errors.Join
	}
	return err != nil
}

// result is what is said of a record for err. Only what is meant for the sender is
// quoted: other errors may tell of the store's insides.
func result(id string, err error) resultJSON {
	r := resultJSON{ID: id, Status: statusOf(err)}
	switch r.Status {
	case delivered:
		return r
	case rejected, postponed:
		r.Reason = cut(err.Error())
	case notApplied:
		r.Reason = "the store did not take it now"
	default:
		r.Reason = "the store does not know whether it took it"
	}
	if delay := sink.RetryDelay(err); delay > 0 {
		r.RetryAfter = wholeSeconds(delay)
	}
	return r
}

func statusOf(err error) string {
	isRejected, isNotApplied := errors.Is(err, sink.ErrRejected), errors.Is(err, sink.ErrNotApplied)
	switch {
	case err == nil:
		return delivered
	case isRejected == isNotApplied: // neither, or a contradiction
		return inDoubt
	case isRejected:
		return rejected
	case errors.Is(err, sink.ErrPostponed):
		return postponed
	}
	return notApplied
}

func wholeSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
