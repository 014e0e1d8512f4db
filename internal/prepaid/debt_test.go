package prepaid

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// A debt outlives an idle return, and restarts, however little was held when it was made.
func TestDebtOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	for _, returned := range []bool{true, false} {
		for _, killed := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 100)
				w.bank.buy("s", 150)
				end := func() {
					if killed {
						w.die()
					} else {
						require.NoError(t, w.close(t.Context()))
					}
					w.balanced("s")
					w.open(100)
				}
				require.NoError(t, w.call(t.Context(), "s", 1))
				if returned {
					time.Sleep(idleAfter + 2*sweepEvery)
					_, left := w.bank.state("s")
					require.EqualValues(t, 149, left)
				}
				end()
				w.used.byHand("s", 120)
				w.balanced("s")
				for range 3 {
					end()
				}
				require.Equal(t, 29, w.use("s", 1))
				end()
				require.Zero(t, w.use("s", 1))
				w.die()
			})
		}
	}
}

// Who is let through without any units pays with what it buys.
func TestUnitsBeforeTheFirstDraw(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.used.byHand("s", 1000) // before its account began
		w.bank.fails(func(context.Context, bool, license.Transfer) fault { return fault{before: errNet} })
		require.True(t, isWait(w.call(t.Context(), "s", 1)))
		require.NoError(t, w.f.Account("s").Begin())
		w.used.byHand("s", 100)
		for range 2 {
			w.die()
			w.open(100)
			w.balanced("s")
		}
		w.bank.fails(nil)
		w.bank.buy("s", 150)
		require.Equal(t, 50, w.use("s", 1))
		w.balanced("s")
		w.die()
	})
}

// What is on its way back, or just was, is there for the next call.
func TestCallsAroundAnIdleReturn(t *testing.T) {
	t.Parallel()
	for _, during := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 100)
			w.bank.buy("s", 100)
			require.NoError(t, w.call(t.Context(), "s", 1))
			w.bank.fails(func(_ context.Context, _ bool, tr license.Transfer) fault {
				if tr.Back {
					time.Sleep(2 * time.Second)
				}
				return fault{}
			})
			a := w.f.Known("s")
			until := func(done func() bool) {
				for range 40_000 {
					if done() {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
				t.Fatal("nothing was returned")
			}
			until(func() bool {
				_, left := w.bank.state("s")
				return during && a.limited() == 1 || left > 0
			})
			require.NoError(t, w.call(t.Context(), "s", 1))
			w.balanced("s")
			w.die()
		})
	}
}

// Nobody is refused because somebody else wants more than there is.
func TestSmallCallBehindALargeOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.bank.buy("s", 150)
		require.NoError(t, w.call(t.Context(), "s", 1)) // 99 left here, 50 there
		time.Sleep(readAgain + time.Second)
		w.bank.fails(func(context.Context, bool, license.Transfer) fault {
			time.Sleep(100 * time.Millisecond)
			return fault{}
		})
		large := make(chan error, 1)
		go func() { large <- w.call(t.Context(), "s", 1000) }()
		synctest.Wait()
		require.NoError(t, w.call(t.Context(), "s", 120))
		require.True(t, isEmpty(<-large))
		w.die()
	})
}

// A draw that others are quicker than is made again, of less.
func TestDrawsAmongMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1000)
		w.bank.buy("s", 1100)
		w.bank.fails(func(_ context.Context, read bool, tr license.Transfer) fault {
			if !read && tr.Units > 20 { // somebody has taken most of it since it was read
				return fault{before: license.ErrNotApplied}
			}
			return fault{}
		})
		require.NoError(t, w.call(t.Context(), "s", 1))
		w.balanced("s")
		w.die()
	})
}

// After a failure callers wait for 5 s at most, or for as long as the Balance says.
func TestPauses(t *testing.T) {
	t.Parallel()
	for after, most := range map[time.Duration]time.Duration{0: 5 * time.Second, time.Minute: time.Minute, time.Hour: 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 10)
			w.bank.buy("s", 10)
			w.bank.fails(func(context.Context, bool, license.Transfer) fault { return fault{before: &badError{after: after}} })
			for range 20 {
				err := w.call(t.Context(), "s", 1)
				wait, ok := errors.AsType[*WaitError](err)
				require.True(t, ok)
				require.LessOrEqual(t, wait.After, most)
				time.Sleep(wait.After)
			}
			w.bank.fails(nil)
			require.NoError(t, w.call(t.Context(), "s", 1))
			w.die()
		})
	}
}

// Close tries again as long as it has time.
func TestCloseTriesAgain(t *testing.T) {
	t.Parallel()
	for _, bounded := range []bool{true, false} {
		for _, heals := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 10)
				w.bank.buy("s", 10)
				require.NoError(t, w.call(t.Context(), "s", 1))
				synctest.Wait()
				start := time.Now()
				w.bank.fails(func(context.Context, bool, license.Transfer) fault {
					if heals && time.Since(start) > 8*time.Second {
						return fault{}
					}
					return fault{before: errNet}
				})
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if bounded {
					ctx, cancel = context.WithTimeout(ctx, 15*time.Second)
				}
				err := w.close(ctx)
				cancel()
				_, left := w.bank.state("s")
				if heals {
					require.NoError(t, err)
					require.EqualValues(t, 9, left)
				} else {
					require.ErrorIs(t, err, errNet)
					require.ErrorContains(t, err, "9 unused prepaid units, of 1 subject")
				}
				require.LessOrEqual(t, time.Since(start), closeTime)
				w.balanced("s")
			})
		}
	}
}

// Subjects who never had anything leave no trace.
func TestUnknownSubjectsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		for i := range 100 {
			require.True(t, isEmpty(w.call(t.Context(), fmt.Sprint("s", i), 1)))
		}
		require.Empty(t, w.p.file.states)
		w.bank.buy("s1", 5)
		time.Sleep(idleAfter + 2*sweepEvery)
		synctest.Wait()
		require.Empty(t, w.f.accounts)
		require.Equal(t, 5, w.use("s1", 1))
		time.Sleep(idleAfter + 2*sweepEvery)
		synctest.Wait()
		require.Len(t, w.f.accounts, 1)
		w.die()
	})
}

// However much others have reserved, nothing is given back that is not there.
func TestHoldsWithoutEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 30)
		require.NoError(t, w.call(t.Context(), "s", 1))
		w.used.byHand("s", 29)
		w.used.mu.Lock()
		w.used.by["s"].held = math.MaxInt64
		w.used.mu.Unlock()
		require.Negative(t, w.f.Known("s").left())
		time.Sleep(idleAfter + 2*sweepEvery)
		synctest.Wait()
		w.balanced("s")
		require.NoError(t, w.p.Close(t.Context()))
		w.balanced("s")
	})
}
