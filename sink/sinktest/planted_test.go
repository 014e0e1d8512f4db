package sinktest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
)

// front is a sink before a biller that works: whatever fails is front's fault.
type front struct {
	biller   *memsink.Sink
	deliver  func(ctx context.Context, records []sink.Record) error // nil: the biller's
	limits   sink.Limits
	kinds    []sink.Kind
	validate error
	prepare  func() error
	usage    func(total int64) int64
}

func (f *front) Deliver(ctx context.Context, records []sink.Record) error {
	if f.deliver != nil {
		return f.deliver(ctx, records)
	}
	return f.biller.Deliver(ctx, records)
}

func (f *front) Limits() sink.Limits { return f.limits }
func (f *front) Kinds() []sink.Kind  { return f.kinds }
func (f *front) Validate() error     { return f.validate }

func (f *front) Prepare(context.Context, []sink.Feature) error {
	if f.prepare != nil {
		return f.prepare()
	}
	return nil
}

func (f *front) Usage(_ context.Context, feature, subject string, _, _ time.Time) (int64, error) {
	total := f.biller.Total(feature, subject)
	if f.usage != nil {
		total = f.usage(total)
	}
	return total, nil
}

// each delivers the records one by one, after change.
func (f *front) each(change func(r *sink.Record)) func(context.Context, []sink.Record) error {
	return func(ctx context.Context, records []sink.Record) error {
		changed := copies(records)
		for i := range changed {
			change(&changed[i])
		}
		return f.biller.Deliver(ctx, changed)
	}
}

// setup is one biller with the fronts that the harness asks for.
type setup struct {
	harness     Harness
	biller      *memsink.Sink
	front       func(f *front) // plants the bug
	unreachable error
	lostReply   error
	stalled     error
}

func newSetup() *setup {
	s := &setup{
		biller:      memsink.New(),
		unreachable: fmt.Errorf("connection refused: %w", sink.ErrNotApplied),
		lostReply:   errors.New("unexpected EOF"),
		stalled:     context.DeadlineExceeded,
	}
	makeFront := func() *front {
		f := &front{
			biller: s.biller, kinds: allKinds,
			limits: sink.Limits{MaxBatch: 50, DedupeWindow: sink.Forever},
		}
		if s.front != nil {
			s.front(f)
		}
		return f
	}
	s.harness = Harness{
		New:   func(testing.TB) sink.Sink { return makeFront() },
		Total: func(_ testing.TB, feature, subject string) int64 { return s.biller.Total(feature, subject) },
		Series: func(_ testing.TB, feature, subject string, dimensions map[string]string) int64 {
			var total int64
			for _, r := range s.biller.Records() {
				if r.Feature == feature && r.Subject == subject && fmt.Sprint(r.Dimensions) == fmt.Sprint(dimensions) {
					total += r.Quantity
				}
			}
			return total
		},
		Restart: func(_ testing.TB, old sink.Sink) sink.Sink { return makeFront() },
		Unreachable: func(testing.TB) sink.Sink {
			f := makeFront()
			f.deliver = func(context.Context, []sink.Record) error { return s.unreachable }
			return f
		},
		LostReply: func(testing.TB) sink.Sink {
			f := makeFront()
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				return errors.Join(s.biller.Deliver(ctx, records), s.lostReply)
			}
			return f
		},
		Stalled: func(testing.TB) sink.Sink {
			f := makeFront()
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				err := s.biller.Deliver(ctx, records)
				<-ctx.Done()
				return errors.Join(err, s.stalled)
			}
			return f
		},
	}
	return s
}

var planted = []struct {
	bug    string
	rule   string // the one that must find it
	detail string // part of what the failure must say
	plant  func(s *setup)
}{
	{"a limit below zero", "limits", "Limits.MaxBatch is -1", func(s *setup) {
		s.front = func(f *front) { f.limits.MaxBatch = -1 }
	}},
	{"an infinite rate", "limits", "Limits.Rate is +Inf", func(s *setup) {
		s.front = func(f *front) { f.limits.Rate = math.Inf(1) }
	}},
	{"no kinds", "limits", "Kinds is empty", func(s *setup) {
		s.front = func(f *front) { f.kinds = nil }
	}},
	{"a kind that does not exist", "limits", "kind 3", func(s *setup) {
		s.front = func(f *front) { f.kinds = []sink.Kind{sink.Sum, 3} }
	}},
	{"validate fails for a good sink", "validate", "no key", func(s *setup) {
		s.front = func(f *front) { f.validate = errors.New("no key") }
	}},
	{"prepare creates instead of checking", "prepare", "Prepare, call 2: exists", func(s *setup) {
		s.front = func(f *front) {
			calls := 0
			f.prepare = func() error {
				if calls++; calls > 1 {
					return errors.New("exists")
				}
				return nil
			}
		}
	}},
	{"counts records instead of quantities", "totals", "the biller has 1 for subject", func(s *setup) {
		s.front = func(f *front) { f.deliver = f.each(func(r *sink.Record) { r.Quantity = 1 }) }
	}},
	{"leaves out the end of a batch", "batch", "number 50", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				return f.biller.Deliver(ctx, records[:min(len(records), 49)])
			}
		}
	}},
	{"sends the first record only", "batch", "number 2", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				return f.biller.Deliver(ctx, records[:1])
			}
		}
	}},
	{"keys by series and forgets the window", "windows", "two windows of one series in a batch", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.insertOnce(func(r sink.Record) string { return r.Feature + r.Subject + fmt.Sprint(r.Dimensions) })
		}
	}},
	{"dedupes by content instead of ID", "windows", "under another ID", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.insertOnce(func(r sink.Record) string {
				return fmt.Sprint(r.Feature, r.Subject, r.Dimensions, r.Start, r.Quantity)
			})
		}
	}},
	{"ignores records older than the newest", "windows", "an older window", func(s *setup) {
		newest := map[string]time.Time{}
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				for _, r := range records {
					if r.Start.Before(newest[r.Subject]) {
						continue
					}
					newest[r.Subject] = r.Start
					if err := f.biller.Deliver(ctx, []sink.Record{r}); err != nil {
						return err
					}
				}
				return nil
			}
		}
	}},
	{"drops dimensions", "dimensions", "for dimensions", func(s *setup) {
		s.front = func(f *front) { f.deliver = f.each(func(r *sink.Record) { r.Dimensions = nil }) }
	}},
	{"keys by subject and window", "dimensions", "want 127", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.insertOnce(func(r sink.Record) string {
				if r.Kind != sink.Sum || r.Dimensions == nil && r.Quantity != 1 {
					return r.ID
				}
				return r.Feature + r.Subject + r.Start.String()
			})
		}
	}},
	{"joins dimensions without escaping", "dimensions", "want 127", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.insertOnce(func(r sink.Record) string {
				if len(r.Dimensions) == 0 {
					return r.ID
				}
				var parts []string
				for name, value := range r.Dimensions {
					parts = append(parts, name+"="+value)
				}
				slices.Sort(parts)
				return r.Subject + strings.Join(parts, ",")
			})
		}
	}},
	{"reads usage of somebody else", "usage", "Usage is 7 after a record of 6", func(s *setup) {
		s.front = func(f *front) {
			f.usage = func(total int64) int64 {
				if total > 0 {
					total++
				}
				return total
			}
		}
	}},
	{"keeps quantities in 32 bits", "big quantity", "the biller has -1", func(s *setup) {
		s.front = func(f *front) { f.deliver = f.each(func(r *sink.Record) { r.Quantity = int64(int32(r.Quantity)) }) }
	}},
	{"refuses a level of zero", "levels", "max of 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if records[0].Quantity == 0 {
					return sink.ErrRejected
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"claims kinds that it refuses", "levels", "last of 12", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.refuse(func(r sink.Record) bool { return r.Kind == sink.Last })
		}
	}},
	{"ignores case", "subjects", "the biller has 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.each(func(r *sink.Record) { r.Subject = strings.ToLower(r.Subject) })
		}
	}},
	{"cuts subjects off", "subjects", "the biller has", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.each(func(r *sink.Record) { r.Subject = r.Subject[:min(255, len(r.Subject))] })
		}
	}},
	{"cuts IDs off", "ids", "want 4", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.insertOnce(func(r sink.Record) string { return r.ID[:min(63, len(r.ID))] })
		}
	}},
	{"sorts in place", "unchanged", "Deliver changed record 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				slices.SortFunc(records, func(a, b sink.Record) int { return int(a.Quantity - b.Quantity) })
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"adds a dimension", "unchanged", "Deliver changed record", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				for _, r := range records {
					if r.Dimensions != nil {
						r.Dimensions["source"] = "meter"
					}
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"buffers the slice until the next call", "retained", "its slice was used again", func(s *setup) {
		s.front = func(f *front) {
			var kept []sink.Record
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				flush := kept
				if kept = records; flush == nil {
					return nil
				}
				return f.biller.Deliver(ctx, flush)
			}
		}
	}},
	{"builds its request in a shared buffer", "concurrency", "want 8", func(s *setup) {
		s.front = func(f *front) {
			f.limits.Concurrency = 4
			var mu sync.Mutex // so that the detector stays quiet: the fault is in the logic
			var request []sink.Record
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				mu.Lock()
				request = records
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				return f.biller.Deliver(ctx, request)
			}
		}
	}},
	{"claims a dedupe window without deduping", "same ID again", "the same record twice the biller has 6", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.each(func(r *sink.Record) { r.ID = fmt.Sprint(r.ID, "-", r.Attempt) })
		}
	}},
	{"answers a repetition with an error", "same ID again", "was answered ErrRejected, want nil", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.refuse(func(r sink.Record) bool {
				return slices.ContainsFunc(f.biller.Records(), func(h sink.Record) bool { return h.ID == r.ID })
			})
		}
	}},
	{"dedupes in memory", "same ID after a restart", "before and after a restart the biller has 6", func(s *setup) {
		s.front = func(f *front) {
			seen := memsink.New()
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				var fresh []sink.Record
				for _, r := range records {
					held := len(seen.Records())
					if err := seen.Deliver(ctx, []sink.Record{r}); err != nil {
						return err
					}
					if len(seen.Records()) > held {
						r.ID = fmt.Sprint(r.ID, "-", r.Attempt)
						fresh = append(fresh, r)
					}
				}
				return f.biller.Deliver(ctx, fresh)
			}
		}
	}},
	{"takes later attempts for delivered", "later attempt", "the biller has 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if records[0].Attempt > 1 {
					return nil
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"takes doubt for delivered", "later attempt", "the first to arrive the biller has 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if records[0].Doubt {
					return nil
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"marks an ID before it is sent", "retry after a failure", "the biller has 0", func(s *setup) {
		s.front = func(f *front) {
			seen := map[string]bool{}
			var mu sync.Mutex
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				mu.Lock()
				defer mu.Unlock()
				var fresh []sink.Record
				for _, r := range records {
					if !seen[r.ID] {
						seen[r.ID] = true
						fresh = append(fresh, r)
					}
				}
				if len(fresh) < len(records) {
					return f.biller.Deliver(ctx, fresh)
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"bills unknown kinds", "unknown kind", "kind 99 was answered nil (delivered), want ErrRejected", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.each(func(r *sink.Record) {
				if r.Kind > sink.Last {
					r.Kind = sink.Sum
				}
			})
		}
	}},
	{"refuses unknown kinds, but not for good", "unknown kind", "was answered ErrNotApplied", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				for _, r := range records {
					if r.Kind > sink.Last {
						return sink.ErrNotApplied
					}
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"bills kinds that it does not combine", "refused kinds", "kind max, which is not among Kinds", func(s *setup) {
		s.front = func(f *front) { f.kinds = []sink.Kind{sink.Sum} }
	}},
	{"one rejection for a batch half recorded", "mixed batch", "answered ErrRejected, the biller has 2", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if f.biller.Deliver(ctx, records) != nil {
					return sink.ErrRejected
				}
				return nil
			}
		}
	}},
	{"answers for the failed records only", "mixed batch", "has 1 entries for 3 records", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				err := f.biller.Deliver(ctx, records)
				if batch, ok := errors.AsType[*sink.BatchError](err); ok {
					batch.Errs = slices.DeleteFunc(batch.Errs, func(err error) bool { return err == nil })
				}
				return err
			}
		}
	}},
	{"skips bad records in silence", "mixed batch", "kind 99 amid good records was answered nil", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				err := f.biller.Deliver(ctx, records)
				if _, ok := errors.AsType[*sink.BatchError](err); ok && len(records) > 1 {
					return nil
				}
				return err
			}
		}
	}},
	{"returns a typed nil", "totals", "nil *sink.BatchError", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				batch, _ := errors.AsType[*sink.BatchError](f.biller.Deliver(ctx, records))
				return batch
			}
		}
	}},
	{"both final and not", "ended context", "both ErrRejected (final) and ErrNotApplied", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if err := f.biller.Deliver(ctx, records); err != nil {
					return errors.Join(err, sink.ErrRejected)
				}
				return nil
			}
		}
	}},
	{"rejects for an ended context", "ended context", "would never be billed", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if ctx.Err() != nil {
					return sink.ErrRejected
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"calls an ended context delivered", "ended context", "the biller has 0", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if ctx.Err() != nil {
					return nil
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"sends in spite of an ended context and says it didn't", "ended context", "the biller has 2", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if err := f.biller.Deliver(context.WithoutCancel(ctx), records); err != nil {
					return err
				}
				if ctx.Err() != nil {
					return sink.ErrNotApplied
				}
				return nil
			}
		}
	}},
	{"ignores its context", "ended context", "did not return within 10s", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = func(ctx context.Context, records []sink.Record) error {
				if ctx.Err() != nil {
					time.Sleep(time.Hour)
				}
				return f.biller.Deliver(ctx, records)
			}
		}
	}},
	{"calls a refused connection doubt", "refused connection", "was answered in doubt", func(s *setup) {
		s.unreachable = errors.New("connection refused")
	}},
	{"calls a refused connection final", "refused connection", "was answered ErrRejected", func(s *setup) {
		s.unreachable = sink.ErrRejected
	}},
	{"calls a lost reply not applied", "lost reply", "was answered ErrNotApplied", func(s *setup) {
		s.lostReply = sink.ErrNotApplied
	}},
	{"calls a lost reply delivered", "lost reply", "was answered nil", func(s *setup) {
		s.lostReply = nil
	}},
	{"calls a timeout not applied", "stalled call", "was answered ErrNotApplied", func(s *setup) {
		s.stalled = fmt.Errorf("%w: %w", sink.ErrNotApplied, context.DeadlineExceeded)
	}},
	{"panics", "big quantity", "Deliver panicked: quantity", func(s *setup) {
		s.front = func(f *front) {
			f.deliver = f.each(func(r *sink.Record) {
				if r.Quantity > math.MaxInt32 {
					panic("quantity")
				}
			})
		}
	}},
}

// insertOnce delivers the first record of each key, and answers nil to all.
func (f *front) insertOnce(key func(sink.Record) string) func(context.Context, []sink.Record) error {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(ctx context.Context, records []sink.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range records {
			k := key(r)
			if seen[k] {
				continue
			}
			if err := f.biller.Deliver(ctx, []sink.Record{r}); err != nil {
				return err
			}
			seen[k] = true
		}
		return nil
	}
}

// refuse rejects the records that bad picks, and delivers the others.
func (f *front) refuse(bad func(sink.Record) bool) func(context.Context, []sink.Record) error {
	return func(ctx context.Context, records []sink.Record) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", sink.ErrNotApplied, err)
		}
		errs := make([]error, len(records))
		for i, r := range records {
			if bad(r) {
				errs[i] = sink.ErrRejected
			} else if err := f.biller.Deliver(ctx, []sink.Record{r}); err != nil {
				errs[i] = err.(*sink.BatchError).Errs[0]
			}
		}
		if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
			return &sink.BatchError{Errs: errs}
		}
		return nil
	}
}

// check runs the kit in a bubble: sinks that hang cost no time there.
func check(t *testing.T, h Harness) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		err = Check(t, h)
		time.Sleep(2 * time.Hour) // a bubble must outlive the calls that the kit gave up
	})
	return err
}

func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, p := range planted {
		found[p.rule] = true
		t.Run(p.bug, func(t *testing.T) {
			t.Parallel()
			s := newSetup()
			p.plant(s)
			err := check(t, s.harness)
			require.Error(t, err)
			var verdict string
			for _, broken := range err.(interface{ Unwrap() []error }).Unwrap() {
				if strings.HasPrefix(broken.Error(), "sinktest: "+p.rule+": ") {
					verdict = broken.Error()
				}
			}
			require.NotEmpty(t, verdict, "rule %q did not find it, only: %v", p.rule, err)
			require.Contains(t, verdict, p.detail)
			require.Contains(t, verdict, "\n\trule: ")
		})
	}
	for _, r := range rules {
		require.True(t, found[r.name], "no bug is planted for rule %q", r.name)
	}
}
