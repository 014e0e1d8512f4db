package prepaid

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func isWait(err error) bool { _, ok := errors.AsType[*WaitError](err); return ok }

// use makes calls until one is refused, and says how many were let through.
func (w *world) use(subject string, n int64) (let int) {
	for {
		err := w.call(w.t.Context(), subject, n)
		if err != nil {
			require.True(w.t, isEmpty(err), "%v", err)
			return let
		}
		let++
	}
}

func TestWhatWasBoughtIsUsed(t *testing.T) {
	t.Parallel()
	for _, block := range []int64{1, 2, 7, 100, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, block)
			require.Zero(t, w.use("s", 1))
			w.bank.buy("s", 250)
			require.Zero(t, w.use("s", 1), "it was looked at a moment ago")
			time.Sleep(readAgain)
			require.Equal(t, 250, w.use("s", 1))
			w.balanced("s")
			w.bank.buy("s", 30)
			time.Sleep(readAgain)
			require.Equal(t, 2, w.use("s", 13), "more than a block is drawn for a call that needs it")
			w.balanced("s")
			require.NoError(t, w.close(t.Context()))
			_, left := w.bank.state("s")
			require.EqualValues(t, 4, left)
			w.open(block)
			require.Equal(t, 4, w.use("s", 1))
			w.balanced("s")
			require.NoError(t, w.close(t.Context()))
		})
	}
}

// A busy subject does not wait: the next block is there before the last is used up.
func TestBlocksAreDrawnAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.bank.buy("s", 1000)
		w.bank.fails(func(context.Context, bool, license.Transfer) fault { time.Sleep(time.Second); return fault{} })
		start := time.Now()
		require.NoError(t, w.call(t.Context(), "s", 1))
		require.Equal(t, 2*time.Second, time.Since(start), "Read and Move")
		for range 400 { // 20 a second
			time.Sleep(50 * time.Millisecond)
			at := time.Now()
			require.NoError(t, w.call(t.Context(), "s", 1))
			require.Equal(t, at, time.Now(), "it has waited")
			a := w.f.Known("s")
			require.LessOrEqual(t, a.left(), int64(150))
		}
		w.die()
	})
}

// However many wait, one transfer is made for all; each goes when its own time is up.
func TestOneFlightForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1000)
		w.bank.buy("s", 5000)
		w.bank.fails(func(context.Context, bool, license.Transfer) fault { time.Sleep(3 * time.Second); return fault{} })
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() { require.NoError(t, w.call(context.Background(), "s", 1)) })
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := w.call(short, "s", 1)
		require.True(t, isWait(err), "%v", err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		all.Wait()
		require.Equal(t, []int{1, 1}, []int{w.bank.reads, w.bank.moves})
		w.die()
	})
}

// While the balance is out of reach, what was drawn is used up, and then it is asked
// less and less often, by nobody's call twice.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.bank.buy("s", 1000)
		require.NoError(t, w.call(t.Context(), "s", 1))
		var asked atomic.Int64
		w.bank.fails(func(context.Context, bool, license.Transfer) fault { asked.Add(1); return fault{before: errNet} })
		let, refused := 1, 0
		for range 600 {
			err := w.call(t.Context(), "s", 1)
			if err == nil {
				let++
			} else {
				require.True(t, isWait(err))
				require.ErrorIs(t, err, errNet)
				refused++
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 100, let)
		require.Less(t, asked.Load(), int64(600/5+10))
		require.ErrorContains(t, w.p.Health(), `"s": connection reset`)
		w.bank.fails(nil)
		time.Sleep(maxPause)
		require.NoError(t, w.call(t.Context(), "s", 1))
		require.NoError(t, w.p.Health())
		w.balanced("s")
		w.die()
	})
}

// 64 goroutines, on one balance, from several processes: as many units as were bought are
// used, not one more and not one less.
func TestExactAdmission(t *testing.T) {
	t.Parallel()
	for processes := range 3 {
		const bought = 10_000
		first := newWorld(t, 70)
		first.bank.buy("s", bought)
		all := []*world{first}
		for range processes {
			w := newWorld(t, 30)
			require.NoError(t, w.p.Close(t.Context()))
			w.bank = first.bank
			w.open(30)
			all = append(all, w)
		}
		var let atomic.Int64
		run := func() {
			var done sync.WaitGroup
			for i := range 64 {
				done.Go(func() {
					for all[i%len(all)].call(context.Background(), "s", 1) == nil {
						let.Add(1)
					}
				})
			}
			done.Wait()
		}
		run()
		for _, w := range all {
			require.NoError(t, w.close(t.Context()))
		}
		_, left := first.bank.state("s")
		require.EqualValues(t, bought, let.Load()+left)
		require.Less(t, left, int64(200), "nobody else had it when it was needed")
	}
}

// Units that nobody uses go back, also those of a subject that never comes back after a
// crash.
func TestIdleUnitsAreReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		for _, s := range []string{"busy", "idle", "gone"} {
			w.bank.buy(s, 100)
			require.NoError(t, w.call(t.Context(), s, 1))
		}
		w.die()
		w.open(100)
		for range 70 {
			time.Sleep(idleAfter / 30)
			require.NoError(t, w.call(t.Context(), "busy", 1))
		}
		_, busy := w.bank.state("busy")
		_, idle := w.bank.state("idle")
		_, gone := w.bank.state("gone")
		require.Equal(t, []int64{0, 99, 99}, []int64{busy, idle, gone})
		require.NoError(t, w.call(t.Context(), "idle", 1), "and are drawn again")
		w.balanced("idle")
		require.NoError(t, w.close(t.Context()))
		_, busy = w.bank.state("busy")
		require.EqualValues(t, 29, busy)
	})
}

// What running calls have reserved stays.
func TestHeldUnitsAreNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.bank.buy("s", 100)
		require.NoError(t, w.call(t.Context(), "s", 10))
		a := w.f.Known("s")
		require.True(t, w.used.reserve("s", a.limited(), 40))
		require.NoError(t, w.p.Close(t.Context()))
		_, left := w.bank.state("s")
		require.EqualValues(t, 50, left)
		w.used.commit("s", 40)
		w.open(100)
		w.balanced("s")
		require.Equal(t, 50, w.use("s", 1))
		w.die()
	})
}

// What was used beyond what was drawn is paid for by the next draw.
func TestDebtIsPaid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 100)
		require.NoError(t, w.call(t.Context(), "s", 1))
		w.used.byHand("s", 49)
		require.Equal(t, 50, w.use("s", 1))
		w.balanced("s")
		w.die()
	})
}
