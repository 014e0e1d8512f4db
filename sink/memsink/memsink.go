// Package memsink keeps records in memory: for tests, examples and first steps.
// What it holds is gone when the process ends.
package memsink

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/inprocess/meter/sink"
)

// Sink holds each record once, by its ID. It takes every kind and has no limits.
//
// Concurrency: safe.
type Sink struct {
	mu      sync.Mutex
	seen    map[string]int // ID → index in records
	records []sink.Record
}

var (
	_ sink.Sink     = (*Sink)(nil)
	_ sink.Limiter  = (*Sink)(nil)
	_ sink.Combiner = (*Sink)(nil)
)

// New returns an empty sink.
func New() *Sink { return &Sink{seen: map[string]int{}} }

// Limits says that an ID counts once for ever.
func (s *Sink) Limits() sink.Limits { return sink.Limits{DedupeWindow: sink.Forever} }

// Kinds are all three.
func (s *Sink) Kinds() []sink.Kind { return []sink.Kind{sink.Sum, sink.Max, sink.Last} }

// Deliver holds the records whose ID is new. A record that came before, with the
// same body, is delivered already.
//
// Errors: sink.ErrNotApplied when ctx has ended; sink.ErrRejected, in a
// *sink.BatchError, for a record without ID, of an unknown kind, or with the ID
// of one that has another body.
func (s *Sink) Deliver(ctx context.Context, records []sink.Record) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("memsink: %w: %w", sink.ErrNotApplied, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(records))
	failed := false
	for i, r := range records {
		errs[i] = s.hold(r)
		failed = failed || errs[i] != nil
	}
	if failed {
		return &sink.BatchError{Errs: errs}
	}
	return nil
}

func (s *Sink) hold(r sink.Record) error {
	if r.ID == "" {
		return fmt.Errorf("memsink: record of %q without ID: %w", r.Feature, sink.ErrRejected)
	}
	if !slices.Contains(s.Kinds(), r.Kind) {
		return fmt.Errorf("memsink: record %s: kind %d is unknown: %w", r.ID, r.Kind, sink.ErrRejected)
	}
	if i, ok := s.seen[r.ID]; ok {
		// An ID stands for one body. Answering nil here would lose the second one.
		if !sameBody(s.records[i], r) {
			return fmt.Errorf("memsink: record %s came before with another body: %w", r.ID, sink.ErrRejected)
		}
		return nil
	}
	r.Dimensions = maps.Clone(r.Dimensions)
	s.seen[r.ID] = len(s.records)
	s.records = append(s.records, r)
	return nil
}

// sameBody ignores Attempt, the one thing that changes between attempts.
func sameBody(a, b sink.Record) bool {
	return a.Feature == b.Feature && a.Subject == b.Subject && maps.Equal(a.Dimensions, b.Dimensions) &&
		a.Kind == b.Kind && a.Quantity == b.Quantity && a.Start.Equal(b.Start) && a.End.Equal(b.End)
}

// Records returns a copy of what is held, in the order of delivery.
func (s *Sink) Records() []sink.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := slices.Clone(s.records)
	for i := range held {
		held[i].Dimensions = maps.Clone(held[i].Dimensions)
	}
	return held
}

// Total is what subject used of feature, in whole units: of each series the sum
// (Sum), the highest level (Max) or the level of the latest window (Last), and
// all series added up. 0 when nothing came.
func (s *Sink) Total(feature, subject string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total int64
	levels := map[string]sink.Record{} // of Max and Last: the record that counts, per series
	for _, r := range s.records {
		if r.Feature != feature || r.Subject != subject {
			continue
		}
		if r.Kind == sink.Sum {
			total += r.Quantity
			continue
		}
		series := fmt.Sprintf("%d %q", r.Kind, r.Dimensions) // fmt sorts the keys
		if held, ok := levels[series]; !ok || supersedes(r, held) {
			levels[series] = r
		}
	}
	for _, r := range levels {
		total += r.Quantity
	}
	return total
}

func supersedes(r, held sink.Record) bool {
	if r.Kind == sink.Max {
		return r.Quantity > held.Quantity
	}
	return !r.Start.Before(held.Start)
}
