package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

func TestDeliversInFullBatchesAndThenSleeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, s := newFakeLedger(t, 1), newBiller(t, nil)
		l.addMany(250)
		d := begin(t, l, nil, s)
		synctest.Wait()
		require.Equal(t, 250, l.ended(0, sink.Delivered))
		var sizes []int
		for _, c := range s.log() {
			sizes = append(sizes, len(c.ids))
		}
		require.Equal(t, []int{100, 100, 50}, sizes)
		require.NoError(t, d.Health())

		before := l.takes(0)
		time.Sleep(24 * time.Hour)
		require.Equal(t, before, l.takes(0), "nothing polls when there is nothing to send")
		l.add("f", "late")
		synctest.Wait()
		require.Equal(t, 251, l.ended(0, sink.Delivered))
	})
}

func TestBackoffGrowsToItsLimitAndEndsWithASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			if up.Load() {
				return nil
			}
			return sink.ErrNotApplied
		})
		l.addMany(150)
		d := begin(t, l, nil, s)
		time.Sleep(3 * time.Hour)
		gaps := s.gaps()
		require.Greater(t, len(gaps), 36)
		for i, gap := range gaps {
			full := double(firstPause, i+1, longestWait)
			require.GreaterOrEqual(t, gap, full/2, i)
			require.LessOrEqual(t, gap, full, i)
		}
		require.ErrorIs(t, d.Health(), sink.ErrNotApplied)
		require.ErrorContains(t, d.Health(), `route "a": delivery fails since`)
		require.ErrorContains(t, d.Health(), fmt.Sprintf("failures: %d", len(s.log())))

		up.Store(true)
		time.Sleep(2 * longestAway)
		require.Equal(t, 150, l.ended(0, sink.Delivered))
		require.NoError(t, d.Health())

		up.Store(false)
		failed := len(s.log())
		l.addMany(1)
		time.Sleep(firstPause)
		require.Equal(t, failed+2, len(s.log()), "the pause is short again")
		up.Store(true)
		time.Sleep(time.Minute)
	})
}

// An outage puts the first batch in doubt, and from then on few records.
func TestOutageOf72Hours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		start := time.Now()
		doubted := map[string]bool{}
		s := newBiller(t, nil)
		s.limits.Concurrency = 2
		s.answer = func(ctx context.Context, _ int, records []sink.Record) error {
			if time.Since(start) >= 72*time.Hour {
				return nil
			}
			for _, record := range records {
				s.mu.Lock()
				doubted[record.ID] = true
				s.mu.Unlock()
				if record.Attempt%2 == 0 {
					s.apply(record.ID) // it arrived, and the answer was lost
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}
		d := begin(t, l, nil, s)
		for range 72 {
			l.addMany(10)
			time.Sleep(time.Hour)
		}
		synctest.Wait()
		require.Error(t, d.Health())
		require.LessOrEqual(t, len(doubted), 100)
		require.Less(t, len(s.log()), 2*72*3600/150, "no more tries than the backoff allows")
		time.Sleep(longestAway + longestWait + time.Minute)
		synctest.Wait()
		require.NoError(t, d.Health())
		require.Equal(t, 720, l.ended(0, sink.Delivered))
		for id := range doubted {
			require.Positive(t, s.times(id))
		}
		require.Len(t, s.applied, 720)
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, records []sink.Record) error {
			switch call {
			case 1: // the route
				return sink.RetryAfter(sink.ErrNotApplied, time.Hour)
			case 2: // one record
				errs := make([]error, len(records))
				errs[0] = sink.RetryAfter(sink.ErrNotApplied, 2*time.Hour)
				return &sink.BatchError{Errs: errs}
			case 4: // the route, although it works
				return sink.RetryAfter(&sink.BatchError{Errs: []error{nil}}, 3*time.Hour)
			}
			return nil
		})
		first := l.add("f", "s1")
		d := begin(t, l, nil, s)
		time.Sleep(time.Hour - 1)
		require.Len(t, s.log(), 1)
		time.Sleep(1)
		synctest.Wait()
		require.Len(t, s.log(), 2)
		require.Error(t, d.Health(), "its only record was not applied again")

		l.add("f", "s2")
		time.Sleep(2*time.Hour - 1)
		require.Zero(t, s.times(first))
		time.Sleep(time.Minute)
		require.Equal(t, 2, l.ended(0, sink.Delivered))
		require.NoError(t, d.Health())

		answered := s.log()[3].at
		l.add("f", "s3")
		time.Sleep(time.Until(answered.Add(3*time.Hour)) - 1)
		require.Equal(t, 2, l.ended(0, sink.Delivered))
		require.NoError(t, d.Health(), "a pause that the sink asked for is no failure")
		time.Sleep(1)
		synctest.Wait()
		require.Equal(t, 3, l.ended(0, sink.Delivered))
	})
}

// A record that fails amid successes waits longer each time, and holds up nobody.
func TestFailingRecordDoesNotSlowTheRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		var tries []time.Time
		s := newBiller(t, func(_ context.Context, _ int, records []sink.Record) error {
			errs := make([]error, len(records))
			for i, record := range records {
				if record.Subject == "bad" {
					tries = append(tries, time.Now())
					errs[i] = sink.ErrNotApplied
				}
			}
			return &sink.BatchError{Errs: errs}
		})
		l.add("f", "bad")
		begin(t, l, nil, s)
		for i := range 600 {
			l.add("f", fmt.Sprint("good", i))
			time.Sleep(10 * time.Second)
			require.Equal(t, i+1, l.ended(0, sink.Delivered))
		}
		synctest.Wait()
		// Alone it looks like a route that is down; with others it does not.
		require.Greater(t, len(tries), 10)
		require.Less(t, len(tries), 40)
		for i := stepAside; i < len(tries); i++ {
			require.GreaterOrEqual(t, tries[i].Sub(tries[i-1]), double(firstDefer, i, longestAway)/2)
		}
	})
}

// One record that makes every batch with it fail must not block its route.
func TestPoisonedRecordIsIsolated(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{sink.ErrNotApplied, errDown} {
		synctest.Test(t, func(t *testing.T) {
			l := newFakeLedger(t, 1)
			s := newBiller(t, func(_ context.Context, _ int, records []sink.Record) error {
				if slices.ContainsFunc(records, func(r sink.Record) bool { return r.Subject == "s40" }) {
					return answer
				}
				return nil
			})
			l.addMany(1000)
			begin(t, l, nil, s)
			time.Sleep(time.Minute)
			require.Equal(t, 999, l.ended(0, sink.Delivered))
			time.Sleep(24 * time.Hour)
			require.Less(t, len(s.log()), 400)
		})
	}
}

// Failures on several slots at once are one failure.
func TestConcurrentFailuresCountOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			if call > 8 {
				return nil
			}
			time.Sleep(time.Second)
			return sink.ErrNotApplied
		})
		s.limits = sink.Limits{MaxBatch: 1, Concurrency: 8}
		l.addMany(8)
		begin(t, l, nil, s)
		time.Sleep(time.Second + firstPause)
		synctest.Wait()
		require.Equal(t, 8, l.ended(0, sink.Delivered))
	})
}

// TestPauseBeforeTheNextAttempt has the dispatcher look at the moment at which a
// failed attempt's records can be taken again.
func TestPauseBeforeTheNextAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		l.resolved = func() {
			select {
			case l.routes[0].ready <- struct{}{}:
			default:
			}
			synctest.Wait()
		}
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			if call == 1 {
				return errors.New("reply lost")
			}
			return nil
		})
		s.limits = sink.Limits{Concurrency: 2, DedupeWindow: sink.Forever}
		l.add("f", "s")
		begin(t, l, nil, s)
		time.Sleep(time.Minute)
		require.Len(t, s.gaps(), 1)
		require.GreaterOrEqual(t, s.gaps()[0], firstPause/2)
	})
}

func TestConcurrencyIsUsedAndKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		var running, most atomic.Int32
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			n := running.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		})
		s.limits = sink.Limits{MaxBatch: 2, Concurrency: 3}
		l.addMany(60)
		start := time.Now()
		d := begin(t, l, nil, s)
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 10*time.Second, time.Since(start))
		require.EqualValues(t, 3, most.Load())
	})
}

func TestSameSeriesIsNeverSentTwiceAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			time.Sleep(time.Second)
			return nil
		})
		s.limits = sink.Limits{MaxBatch: 1, Concurrency: 4}
		for range 10 {
			l.add("f", "one")
			l.add("f", "two")
		}
		start := time.Now()
		d := begin(t, l, nil, s) // the biller complains about overlaps
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

func TestRejectedIsFinalAndNoFailureOfTheRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, down(fmt.Errorf("no such customer: %w", sink.ErrRejected)))
		l.addMany(150)
		d := begin(t, l, nil, s)
		synctest.Wait()
		require.Equal(t, 150, l.ended(0, sink.Rejected))
		require.NoError(t, d.Health())
		require.NoError(t, d.Flush(t.Context()))
	})
}

func TestLedgerThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("input/output error")
		l, s := newFakeLedger(t, 2), newBiller(t, nil)
		l.routes[0].takeErr = broken
		l.routes[1].resolveErr = broken
		l.addMany(3)
		d := begin(t, l, nil, s, newBiller(t, nil))
		err := d.Flush(t.Context())
		require.ErrorIs(t, err, broken)
		require.ErrorContains(t, err, `route "a": 3 records still open: ledger: input/output error`)
		require.ErrorContains(t, err, `route "b": 3 records still open: input/output error`)
		require.Empty(t, s.log(), "nothing is sent that is not marked")
		require.NotContains(t, d.Health().Error(), `route "b"`, "the ledger reports what it could not store")
		before := l.takes(0)
		time.Sleep(time.Hour)
		require.Less(t, l.takes(0)-before, 40)

		l.mu.Lock()
		l.routes[0].takeErr = nil
		l.mu.Unlock()
		time.Sleep(longestWait)
		require.Equal(t, 3, l.ended(0, sink.Delivered))
		require.NoError(t, d.Health())
	})
}
