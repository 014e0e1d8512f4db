package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// chaos applies what it was sent, in part or not at all, before or after it
// says anything between the truth and nonsense. It never claims that something
// was not applied that was, nor the other way round, for no delivery could
// survive that; records it has rejected it never applies.
func chaos(s *biller) func(context.Context, int, []sink.Record) error {
	return func(ctx context.Context, _ int, records []sink.Record) error {
		time.Sleep(time.Duration(rand.N(1000)) * time.Millisecond)
		some := func() {
			for _, record := range records {
				if rand.N(2) == 0 {
					s.apply(record.ID)
				}
			}
		}
		all := func() {
			for _, record := range records {
				s.apply(record.ID)
			}
		}
		switch rand.N(14) {
		case 0:
			return sink.ErrNotApplied
		case 1:
			return sink.RetryAfter(sink.ErrNotApplied, time.Duration(rand.N(20))*time.Second)
		case 2:
			some()
			return errDown
		case 3:
			some()
			panic("chaos")
		case 4:
			all()
			runtime.Goexit()
		case 5:
			some()
			<-ctx.Done()
			time.Sleep(time.Duration(rand.N(60)) * time.Second)
			return ctx.Err()
		case 6:
			some()
			return &sink.BatchError{Errs: make([]error, rand.N(len(records)))}
		case 7:
			some()
			return errors.Join(&sink.BatchError{Errs: make([]error, len(records))}, sink.ErrNotApplied)
		case 8, 9, 10:
			errs := make([]error, len(records))
			for i, record := range records {
				switch rand.N(4) {
				case 0:
					errs[i] = sink.ErrNotApplied
				case 1:
					errs[i] = sink.RetryAfter(errDown, time.Second)
				default:
					s.apply(record.ID)
				}
			}
			return fmt.Errorf("post: %w", &sink.BatchError{Errs: errs})
		}
		return nil
	}
}

// Each record ends delivered on every route, none is left and none invented,
// whatever the sinks do.
func TestConservationUnderChaos(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const counters, each = 4, 200
		var sinks []sink.Sink
		for _, limits := range []sink.Limits{
			{MaxBatch: 1, Concurrency: 8},
			{MaxBatch: 10, Concurrency: 3},
			{MaxBatch: 100, Rate: 50},
			{Concurrency: 2},
		} {
			s := newBiller(t, nil)
			s.limits, s.limits.DedupeWindow = limits, sink.Forever
			s.answer = chaos(s)
			sinks = append(sinks, s)
		}
		l := newFakeLedger(t, len(sinks))
		d := begin(t, l, nil, sinks...)
		var counting sync.WaitGroup
		for c := range counters {
			counting.Go(func() {
				for range each {
					l.add(fmt.Sprint("f", rand.N(2)), fmt.Sprint("s", c, rand.N(50)))
					if rand.N(50) == 0 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						_ = d.Flush(ctx)
						cancel()
					}
					time.Sleep(time.Duration(rand.N(200)) * time.Millisecond)
				}
			})
		}
		counting.Wait()
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		for i, s := range sinks {
			open, _ := l.OpenRecords(i)
			require.Zero(t, open)
			require.Equal(t, counters*each, l.ended(i, sink.Delivered))
			require.Len(t, s.(*biller).applied, counters*each)
		}
		require.NoError(t, d.Health())
	})
}

// Starting, stopping and flushing at any time, in real time for the race
// detector: nothing is sent after Stop, and nothing that was taken stays taken.
func TestStartStopStress(t *testing.T) {
	t.Parallel()
	for range 100 {
		l := newFakeLedger(t, 2)
		s := newBiller(t, func(context.Context, int, []sink.Record) error {
			if rand.N(3) == 0 {
				return sink.ErrNotApplied
			}
			runtime.Gosched()
			return nil
		})
		s.limits = sink.Limits{MaxBatch: 3, Concurrency: 3}
		d := Start(Config{Ledger: l, Routes: to(s, newPicky(t, func(context.Context, int, []sink.Feature) error { return nil })),
			Features: func() []sink.Feature { return []sink.Feature{{Name: "f"}} }})
		var busy sync.WaitGroup
		for range 3 {
			busy.Go(func() { l.addMany(20) })
			busy.Go(func() { _ = d.Flush(t.Context()) })
			busy.Go(func() { _ = d.Health() })
			busy.Go(func() { _ = d.Prepare(t.Context(), []sink.Feature{{Name: "f"}}) })
		}
		busy.Go(func() {
			for range rand.N(50) {
				runtime.Gosched()
			}
			if err := d.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			calls := len(s.log())
			runtime.Gosched()
			if len(s.log()) != calls {
				t.Error("sent after Stop")
			}
		})
		busy.Wait()
		for _, r := range l.routes {
			require.Empty(t, r.busy)
		}
	}
}
