package delivery

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// oracle is a sink that knows more than how to deliver.
type oracle struct {
	*biller
	end    func(after time.Time) time.Time
	verify func(r sink.Record, alone bool) (sink.Outcome, error)
}

func (o *oracle) NextEnd(after time.Time) time.Time { return o.end(after) }
func (o *oracle) Verify(_ context.Context, r sink.Record, alone bool) (sink.Outcome, error) {
	return o.verify(r, alone)
}

func TestScheduleReachesTheLedger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 2)
		end := time.Now().Add(time.Hour)
		var panics atomic.Bool
		o := &oracle{biller: newBiller(t, nil), end: func(after time.Time) time.Time {
			if panics.Load() {
				panic("no period")
			}
			require.False(t, after.After(time.Now()))
			return end
		}}
		log, out := logger()
		begin(t, l, log, o, newBiller(t, nil))
		time.Sleep(2 * scheduleEvery)
		synctest.Wait()
		require.Equal(t, end, l.routes[0].end)
		require.Zero(t, l.routes[1].end)
		panics.Store(true)
		time.Sleep(2 * scheduleEvery)
		synctest.Wait()
		require.Equal(t, end, l.routes[0].end, "what is known stays")
		require.Contains(t, out.String(), "consult_test.go")
		id := l.add("f", "s")
		synctest.Wait()
		require.Equal(t, sink.Delivered, l.state(id))
	})
}

func TestDoubtsAreVerified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(t, 1)
		for _, id := range []string{"there", "missing", "unclear", "shared", "unreachable", "behind", "u1", "u2", "u3", "u4", "u5", "last"} {
			l.routes[0].doubts = append(l.routes[0].doubts, ledger.Doubt{Record: sink.Record{ID: id}, Alone: id != "shared"})
		}
		var down atomic.Bool
		down.Store(true)
		o := &oracle{biller: newBiller(t, nil), end: func(time.Time) time.Time { return time.Time{} }}
		o.verify = func(r sink.Record, alone bool) (sink.Outcome, error) {
			switch {
			case r.ID == "there" || r.ID == "behind" || r.ID == "last":
				return sink.Delivered, nil
			case r.ID == "missing":
				return sink.Pending, nil
			case r.ID[0] == 'u' && r.ID != "unclear" && down.Load():
				return sink.Delivered, errors.New("connection refused")
			case r.ID == "shared":
				require.False(t, alone)
				return sink.Rejected, nil // no answer to this question
			}
			return sink.InDoubt, nil
		}
		log, out := logger()
		d := begin(t, l, log, o)
		time.Sleep(verifyEvery + time.Second)
		synctest.Wait()
		verified := func(id string, as sink.Outcome) string {
			return "a " + id + " " + as.String() + `: verified with the sink of route "a"`
		}
		require.Equal(t, []string{verified("there", sink.Delivered), verified("missing", sink.Pending), verified("behind", sink.Delivered)}, l.settled)
		require.Contains(t, out.String(), "connection refused")
		down.Store(false)
		time.Sleep(verifyEvery)
		synctest.Wait()
		require.Len(t, l.settled, 4)
		require.Equal(t, verified("last", sink.Delivered), l.settled[3])
		require.NoError(t, d.Stop(context.Background()))
	})
}
