package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

func TestFlushWithNothingOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := begin(t, newFakeLedger(t, 1), nil, newBiller(t, nil))
		require.NoError(t, d.Flush(t.Context()))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, d.Flush(ended))
	})
}

// A nil context must not wait for the dispatcher to stumble over it.
func TestFlushWithoutAContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		d := begin(t, l, nil, newBiller(t, down(sink.ErrNotApplied)))
		l.add("f", "s")
		require.Panics(t, func() { _ = d.Flush(nil) }) //nolint:staticcheck // that is what is tested
		require.Error(t, d.Flush(t.Context()))
	})
}

func TestFlushWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			time.Sleep(10 * time.Second)
			return nil
		})
		s.limits.Concurrency = 4
		l.add("f", "s")
		d := begin(t, l, nil, s)
		synctest.Wait()
		require.Len(t, s.log(), 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := d.Flush(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `route "a": 1 record still open, 1 delivery running`)

		start := time.Now()
		var flushes sync.WaitGroup
		for range 3 {
			flushes.Go(func() {
				if err := d.Flush(t.Context()); err != nil || l.ended(0, sink.Delivered) != 1 {
					t.Error("flush returned early", err)
				}
			})
		}
		flushes.Wait()
		require.Equal(t, 9*time.Second, time.Since(start))
	})
}

// An attempt begun before the call that fails does not count: its record is
// tried again.
func TestFlushTriesAgainWhatWasInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			time.Sleep(10 * time.Second)
			if call == 1 {
				return sink.ErrNotApplied
			}
			return nil
		})
		l.add("f", "s")
		d := begin(t, l, nil, s)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 20*time.Second, time.Since(start))
	})
}

// What a sink asks for is not a backoff of ours: a flush waits as well, or gives up at
// once where it can't.
func TestFlushHonorsRetryAfter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after, limit, took time.Duration
		delivered          int
	}{
		"soon enough":       {after: 30 * time.Second, took: 30 * time.Second, delivered: 1},
		"past its time":     {after: 30 * time.Second, limit: 25 * time.Second},
		"without an end":    {after: time.Hour},
		"long, and patient": {after: time.Hour, limit: 2 * time.Hour, took: time.Hour, delivered: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLedger(t, 1)
				s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
					if call == 1 {
						return sink.RetryAfter(sink.ErrNotApplied, c.after)
					}
					return nil
				})
				l.add("f", "s")
				d := begin(t, l, nil, s)
				synctest.Wait()
				ctx, start := t.Context(), time.Now()
				if c.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.limit)
					defer cancel()
				}
				err := d.Flush(ctx)
				require.Equal(t, c.delivered == 1, err == nil, "%v", err)
				require.Equal(t, c.took, time.Since(start))
				require.Equal(t, c.delivered, l.ended(0, sink.Delivered))
			})
		})
	}
}

// A record that waits because of what it is keeps no other waiting, and no flush.
func TestPostponedRecordsWaitAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, nil)
		s.answer = func(_ context.Context, _ int, records []sink.Record) error {
			errs := make([]error, len(records))
			for i, r := range records {
				if r.Subject == "nobody" || r.Subject == "several" {
					errs[i] = sink.RetryAfter(fmt.Errorf("subject %q: %w", r.Subject, sink.ErrPostponed), time.Minute)
				}
			}
			return &sink.BatchError{Errs: errs}
		}
		d := begin(t, l, nil, s)
		for range 20 {
			l.add("f", "nobody")
			l.add("f", "several")
			id := l.add("f", "good")
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, sink.Delivered, l.state(id))
			require.NoError(t, d.Health(), "the route is fine; the ledger tells of the others")
		}
		start := time.Now()
		require.ErrorContains(t, d.Flush(t.Context()), "40 records still open")
		require.Zero(t, time.Since(start))
	})
}

func TestFlushIgnoresABackoffOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		up := false
		s := newBiller(t, nil)
		s.answer = func(context.Context, int, []sink.Record) error {
			if up {
				return nil
			}
			return fmt.Errorf("dial: %w", sink.ErrNotApplied)
		}
		l.addMany(500)
		d := begin(t, l, nil, s)
		time.Sleep(time.Hour)
		synctest.Wait()
		calls, start := len(s.log()), time.Now()
		err := d.Flush(t.Context())
		require.ErrorContains(t, err, `route "a": 500 records still open: dial: sink: not applied`)
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.Equal(t, calls+1, len(s.log()), "a route that is down is asked once")
		require.Zero(t, time.Since(start))

		up = true
		require.NoError(t, d.Flush(t.Context()))
		require.LessOrEqual(t, time.Since(start), longestAway, "at most what the records stepped aside for")
		require.Equal(t, 500, l.ended(0, sink.Delivered))
	})
}

// A first failure is a hiccup: with more to try, a flush goes on after it.
func TestFlushSurvivesAHiccup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			if call < 3 {
				return sink.ErrNotApplied
			}
			return nil
		})
		d := begin(t, l, nil, s)
		l.addMany(500)
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 500, l.ended(0, sink.Delivered))
	})
}

func TestFlushEndsWhenEachRecordFailedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 2)
		busy := make(chan struct{}) // keeps the routes occupied until the flush has begun
		s := newBiller(t, func(_ context.Context, call int, records []sink.Record) error {
			if call == 1 {
				<-busy
				return nil
			}
			errs := make([]error, len(records))
			for i := range records {
				if i%2 == 1 {
					errs[i] = errors.New("odd customer")
				}
			}
			return &sink.BatchError{Errs: errs}
		})
		s.limits.DedupeWindow = time.Hour
		other := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			if call == 1 {
				<-busy
				return nil
			}
			return sink.ErrNotApplied
		})
		d := begin(t, l, nil, s, other)
		l.add("f", "first")
		synctest.Wait()
		l.addMany(10)
		start := time.Now()
		flushed := make(chan error, 1)
		go func() { flushed <- d.Flush(t.Context()) }()
		synctest.Wait()
		close(busy)
		err := <-flushed
		require.ErrorContains(t, err, `route "a": 5 records still open`)
		require.ErrorContains(t, err, `route "b": 10 records still open: sink: not applied`)
		require.Zero(t, time.Since(start))
		require.Len(t, s.log(), 2)
	})
}

// What a sink does not want before a time is waited for if the time comes.
func TestFlushAndRecordsThatMustWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, records []sink.Record) error {
			errs := make([]error, len(records))
			if call == 1 {
				errs[0] = sink.RetryAfter(sink.ErrNotApplied, time.Hour)
			}
			return &sink.BatchError{Errs: errs}
		})
		l.addMany(10)
		d := begin(t, l, nil, s)
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		require.ErrorContains(t, d.Flush(ctx), "1 record still open")
		require.Zero(t, time.Since(start), "no use in waiting")
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, time.Hour, time.Since(start))
	})
}

// What the ledger finds too old to be sent again waits for a person, and not for Flush.
func TestFlushAndDoubtThatExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error { return errors.New("who knows") })
		s.limits.DedupeWindow = time.Hour
		l.addMany(10)
		d := begin(t, l, nil, s)
		synctest.Wait()
		require.Len(t, s.log(), 1)
		l.routes[0].expired = true
		require.NoError(t, d.Flush(t.Context()))
		require.Len(t, s.log(), 1)
	})
}

func TestFlushDoesNotIgnoreTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, s := newFakeLedger(t, 1), newBiller(t, nil)
		s.limits.Rate = 10
		l.addMany(100)
		d := begin(t, l, nil, s)
		start := time.Now()
		require.NoError(t, d.Flush(t.Context()))
		require.Equal(t, 9*time.Second, time.Since(start))
	})
}

func TestFlushAndStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			time.Sleep(10 * time.Second)
			return nil
		})
		s.limits.MaxBatch = 1
		l.addMany(5)
		d := begin(t, l, nil, s)
		flushed := make(chan error, 1)
		go func() { flushed <- d.Flush(t.Context()) }()
		synctest.Wait()
		var stops sync.WaitGroup
		start := time.Now()
		for range 3 {
			stops.Go(func() {
				if err := d.Stop(t.Context()); err != nil || time.Since(start) != 10*time.Second {
					t.Error("stopped", err, time.Since(start))
				}
			})
		}
		stops.Wait()
		err := <-flushed
		require.ErrorIs(t, err, errStopped)
		require.ErrorContains(t, err, "4 records still open")
		require.ErrorIs(t, d.Flush(t.Context()), errStopped)
		require.Len(t, s.log(), 1)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, d.Stop(ended), "it has stopped, whatever the context")
	})
}

func TestStopWithoutTime(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			l := newFakeLedger(t, 3)
			d := Start(Config{Ledger: l, Routes: to(newBiller(t, nil), newBiller(t, nil), newBiller(t, nil))})
			synctest.Wait()
			require.NoError(t, d.Stop(ended), "there was nothing to wait for")
		})
	}
}

// A count of open records made before the call says nothing about the call.
func TestFlushIsNotEndedByAnOlderCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			time.Sleep(time.Minute)
			return nil
		})
		flushed := make(chan error, 1)
		started := make(chan *Delivery, 1)
		l.counted = func(open int) {
			l.counted = nil
			if open != 0 {
				t.Error("open too early")
			}
			l.add("f", "s")
			go func() {
				d := <-started
				flushed <- d.Flush(t.Context())
			}()
			time.Sleep(time.Second) // the flush has begun; the dispatcher still believes that nothing is open
		}
		started <- begin(t, l, nil, s)
		require.NoError(t, <-flushed)
		require.Equal(t, 1, l.ended(0, sink.Delivered))
	})
}

// What was in flight at the call and then has to wait is waited for.
func TestFlushWaitsForARetryOfWhatWasInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
			time.Sleep(10 * time.Second)
			if call == 1 {
				return &sink.BatchError{Errs: []error{nil, sink.RetryAfter(sink.ErrNotApplied, time.Hour)}}
			}
			return nil
		})
		l.addMany(2)
		d := begin(t, l, nil, s)
		synctest.Wait()
		require.NoError(t, d.Flush(t.Context()))
		require.Len(t, s.log(), 2)
	})
}

// A record that keeps failing and a feature that keeps being refused must not
// hold a flush between them for as long as others keep coming.
func TestFlushEndsWithAHeldFeatureAndAFailingRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		s := newPicky(t, func(_ context.Context, _ int, features []sink.Feature) error {
			errs := make([]error, len(features))
			for i, feature := range features {
				if feature.Name == "bad" {
					errs[i] = errors.New("no such meter")
				}
			}
			return &sink.BatchError{Errs: errs}
		})
		s.answer = func(_ context.Context, _ int, records []sink.Record) error {
			errs := make([]error, len(records))
			for i, record := range records {
				if record.Subject == "failing" {
					errs[i] = sink.ErrNotApplied
				}
			}
			return &sink.BatchError{Errs: errs}
		}
		l.add("bad", "s")
		l.add("good", "failing")
		d := declare(t, l, s, "good", "bad")
		var coming sync.WaitGroup
		coming.Go(func() {
			for i := range 1200 {
				l.add("good", fmt.Sprint(i))
				time.Sleep(time.Second / 2)
			}
		})
		start := time.Now()
		require.ErrorContains(t, d.Flush(t.Context()), "records still open")
		require.Less(t, time.Since(start), time.Minute)
		coming.Wait()
	})
}

// Each flush sees what was open at its own call, however they interleave with
// counting, sending and failing.
func TestFlushNeverReturnsNilEarly(t *testing.T) {
	t.Parallel()
	l := newFakeLedger(t, 1)
	s := newBiller(t, func(_ context.Context, call int, _ []sink.Record) error {
		if call%50 == 0 {
			return sink.ErrNotApplied
		}
		return nil
	})
	s.limits = sink.Limits{MaxBatch: 3, Concurrency: 3, DedupeWindow: sink.Forever}
	d := begin(t, l, nil, s)
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := range 100 {
				id := l.add("f", fmt.Sprint(c, i))
				if err := d.Flush(t.Context()); err == nil && s.times(id) != 1 {
					t.Error("flush returned nil before its record was delivered")
				}
			}
		})
	}
	callers.Wait()
}
