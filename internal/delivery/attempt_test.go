package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func logger() (*slog.Logger, *syncBuffer) {
	b := &syncBuffer{}
	return slog.New(slog.NewTextHandler(b, nil)), b
}

// wrapped has the commonest slip of all: returned as a nil pointer it is no nil
// error, and whoever unwraps it falls.
type wrapped struct{ cause error }

func (w *wrapped) Error() string { return "wrapped" }
func (w *wrapped) Unwrap() error { return w.cause }

// An error whose own methods panic must hurt nobody but its own records.
func TestErrorThatPanics(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{
		"nil pointer": (*wrapped)(nil), "when looked at": contrary{}, "when printed": silent{},
		"in a batch": &sink.BatchError{Errs: []error{(*wrapped)(nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLedger(t, 2)
				s := newBiller(t, nil)
				s.answer = func(context.Context, int, []sink.Record) error { return fault }
				id := l.add("f", "s")
				log, out := logger()
				d := begin(t, l, log, s, newBiller(t, nil))
				synctest.Wait()
				require.Equal(t, sink.InDoubt, l.state(id))
				require.Error(t, d.Health())
				require.NotErrorIs(t, d.Health(), sink.ErrRejected, "nor may looking at it")
				require.Contains(t, out.String(), "delivery fails")
				require.Equal(t, 1, l.ended(1, sink.Delivered), "other routes go on")
			})
		})
	}
}

// errCanary stands for a key that a panic's text holds.
var errCanary = errors.New("keycanary")

func TestSinkThatPanicsOrExits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail func(call int)
		want string
	}{
		"panic":        {func(int) { panic("no such index: " + errCanary.Error()) }, "sink panicked with a string"},
		"panic(nil)":   {func(int) { panic(nil) }, "sink panicked: panic called with nil argument"},
		"nil map":      {func(int) { map[string]int(nil)["x"] = 1 }, "sink panicked: assignment to entry in nil map"},
		"silent panic": {func(int) { panic(silent{}) }, "sink panicked with a delivery.silent"},
		"slice":        {func(call int) { _ = []int{}[call] }, "sink panicked: runtime error: index out of range"},
		"error":        {func(int) { panic(errCanary) }, "sink panicked with a *errors.errorString"},
		"Goexit":       {func(int) { runtime.Goexit() }, "sink called runtime.Goexit"},
		"new messages": {func(call int) { panic(fmt.Sprint("at ", call)) }, "sink panicked with a string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLedger(t, 2)
				var up atomic.Bool
				s := newBiller(t, nil)
				s.answer = func(_ context.Context, call int, _ []sink.Record) error {
					if !up.Load() {
						c.fail(call)
					}
					return nil
				}
				id := l.add("f", "s")
				log, out := logger()
				other := newBiller(t, nil)
				d := begin(t, l, log, s, other)
				synctest.Wait()
				require.Equal(t, sink.InDoubt, l.state(id))
				require.ErrorContains(t, d.Health(), c.want)
				require.NotContains(t, d.Health().Error(), errCanary.Error())
				require.Equal(t, 1, l.ended(1, sink.Delivered), "other routes go on")
				time.Sleep(20 * time.Second)
				require.Equal(t, 1, strings.Count(out.String(), "delivery fails"), "not per try")
				if name != "Goexit" {
					require.Equal(t, 1, strings.Count(out.String(), "stack="), "one stack a place")
				}
				require.NotContains(t, out.String(), errCanary.Error())
				up.Store(true)
				time.Sleep(longestAway)
				require.Equal(t, 1, l.ended(0, sink.Delivered))
				require.Equal(t, 1, strings.Count(out.String(), "delivery works again"))
			})
		})
	}
}

func TestHungSink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 2)
		release := make(chan struct{})
		canceled := false
		s := newBiller(t, func(ctx context.Context, call int, _ []sink.Record) error {
			if call == 1 {
				<-ctx.Done()
				canceled = true
				<-release // deaf
			}
			return nil
		})
		s.limits = sink.Limits{MaxBatch: 1, Concurrency: 2, Timeout: time.Minute}
		other := newBiller(t, nil)
		l.add("f", "s")
		log, out := logger()
		d := begin(t, l, log, s, other)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.True(t, canceled, "the deadline reaches the sink")
		time.Sleep(time.Hour)
		l.add("f", "s") // the same series waits
		l.add("f", "t") // others use the free slot
		synctest.Wait()
		require.Len(t, s.log(), 2)
		require.Equal(t, []string{"r3"}, s.log()[1].ids)
		require.Equal(t, 3, l.ended(1, sink.Delivered), "other routes go on")
		require.ErrorContains(t, d.Health(), `route "a": a delivery of 1 record runs for 1h1m0s, past its timeout of 1m0s`)
		require.NotContains(t, d.Health().Error(), `route "b"`)
		require.Equal(t, 1, strings.Count(out.String(), "does not end after its deadline"))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		require.ErrorContains(t, d.Flush(ctx), `route "a": 2 records still open, 1 delivery running`)
		cancel()

		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		began := time.Now()
		err := d.Stop(ctx)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `route "a": 1 delivery of 1 record still running`)
		cancel()

		l.add("f", "u")
		synctest.Wait()
		close(release)
		synctest.Wait()
		require.Equal(t, 2, l.ended(0, sink.Delivered), "it resolves after all")
		require.NoError(t, d.Health())
		require.NoError(t, d.Stop(t.Context()))
		require.Len(t, s.log(), 2, "nothing is taken after Stop")
	})
}

func TestSinkThatKeepsAndChangesRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		stop := make(chan struct{})
		s := sink.Func(func(_ context.Context, records []sink.Record) error {
			vandalize := func() {
				for i := range records {
					records[i].ID = ""
					if records[i].Dimensions != nil {
						records[i].Dimensions["region"] = "moon"
					}
				}
			}
			vandalize()
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						vandalize()
					}
				}
			}()
			return sink.ErrNotApplied
		})
		l.addMany(10)
		d := begin(t, l, nil, s)
		time.Sleep(time.Minute) // the fake ledger complains
		require.ErrorContains(t, d.Flush(t.Context()), "10 records still open")
		close(stop)
	})
}
