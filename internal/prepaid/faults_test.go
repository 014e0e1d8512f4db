package prepaid

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

var errDead = errors.New("the process is dead")

func TestFaultyBalances(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		fault      fault
		read, move bool // where
	}{
		"read fails":         {fault{before: errNet}, true, false},
		"read panics":        {fault{panics: true}, true, false},
		"move panics":        {fault{panics: true}, false, true},
		"lost before":        {fault{before: errNet}, false, true},
		"lost after":         {fault{after: errNet}, false, true},
		"surely not applied": {fault{before: license.ErrNotApplied}, false, true},
	} {
		for _, back := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 100)
				w.bank.buy("s", 300)
				strike := func() {
					left := 1
					w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault {
						if left > 0 && (read && test.read || !read && test.move) {
							left--
							return test.fault
						}
						return fault{}
					})
				}
				if back {
					require.NoError(t, w.call(t.Context(), "s", 1))
					strike()
					time.Sleep(idleAfter + sweepEvery)
					w.balanced("s")
					time.Sleep(maxPause + 2*sweepEvery)
					_, left := w.bank.state("s")
					require.EqualValues(t, 299, left, what)
				} else {
					strike()
					err := w.call(t.Context(), "s", 1)
					if errors.Is(test.fault.before, license.ErrNotApplied) {
						require.NoError(t, err, "it was tried again")
					} else {
						require.Error(t, err, what)
						require.NotContains(t, err.Error(), "secret")
					}
					w.balanced("s")
					time.Sleep(2 * firstPause)
				}
				w.balanced("s")
				for w.used.of("s").counted < 300 {
					require.NoError(t, w.call(t.Context(), "s", 1), what)
				}
				w.balanced("s")
				w.die()
			})
		}
	}
}

// What nobody can tell is used and returned by nobody until a person decides.
func TestUndecidable(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 100)
				w.bank.buy("s", 1000)
				if back {
					require.NoError(t, w.call(t.Context(), "s", 10))
				}
				left := 1
				w.bank.forgets = true
				w.bank.fails(func(_ context.Context, read bool, t license.Transfer) fault {
					if left == 0 || read || t.Back != back {
						return fault{}
					}
					left--
					if applied {
						return fault{after: errNet}
					}
					return fault{before: errNet}
				})
				if back {
					time.Sleep(idleAfter + 3*sweepEvery)
				} else {
					require.True(t, isWait(w.call(t.Context(), "s", 1)))
				}
				time.Sleep(2 * sweepEvery)
				a := w.f.Known("s")
				require.Len(t, a.now().Aside, 1)
				d := a.now().Aside[0]
				w.balanced("s")
				err := w.p.Health()
				require.ErrorContains(t, err, d.ID)
				require.ErrorContains(t, err, fmt.Sprintf("%d units", d.Units))
				w.die()
				w.open(100)
				w.balanced("s")
				held := applied != back // they left the balance and are not back there
				require.ErrorIs(t, w.p.Settle(t.Context(), "other", held, ""), ErrUnknown)
				require.NoError(t, w.p.Settle(t.Context(), d.ID, held, "asked the bank"))
				require.ErrorIs(t, w.p.Settle(t.Context(), d.ID, held, ""), ErrUnknown)
				require.NoError(t, w.p.Health())
				w.use("s", 1)
				require.EqualValues(t, 1000, w.used.of("s").counted)
				w.die()
				w.open(100)
				require.Equal(t, "asked the bank", w.p.file.decisions[0].Note)
				w.die()
			})
		}
	}
}

// A process that dies between any two steps, or whose disk fails for one, loses and
// makes no units.
func TestDeathBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	for _, forever := range []bool{true, false} { // the process dies, or one step fails
		for fatal := 0; ; fatal++ {
			reached := false
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
				var n atomic.Int64
				var dead atomic.Bool
				step := func() error {
					if n.Add(1)-1 == int64(fatal) || dead.Load() {
						dead.Store(forever)
						return errDead
					}
					return nil
				}
				w.step = func(string) error { return step() }
				w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault {
					if step() != nil { // before the request, or after it
						return fault{before: errDead}
					}
					if !read && step() != nil {
						return fault{after: errDead}
					}
					return fault{}
				})
				w.bank.buy("s", 200)
				w.open(50)
				for range 120 {
					_ = w.call(t.Context(), "s", 1)
					time.Sleep(100 * time.Millisecond)
				}
				if !dead.Load() {
					time.Sleep(idleAfter + 2*maxPause + 2*sweepEvery)
					_ = w.call(t.Context(), "s", 1)
				}
				if !dead.Load() {
					_ = w.close(t.Context())
				}
				w.die()
				reached = n.Load() > int64(fatal)
				w.step = nil
				w.bank.fails(nil)
				w.open(50)
				synctest.Wait()
				w.balanced("s")
				w.use("s", 1)
				require.EqualValues(t, 200, w.used.of("s").counted, "step %d", fatal)
				w.die()
			})
			if !reached {
				require.Greater(t, fatal, 30)
				break
			}
		}
	}
}

// Whichever write or sync fails, and at whatever step the process then dies: what the
// failed one has left in the file makes and loses no units.
func TestDeathAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	for failed := 0; ; failed++ {
		reached := false
		for after := 1; after < 12; after++ {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 50)
				w.die()
				var n atomic.Int64
				w.step = func(string) error {
					if at := n.Add(1) - 1; at == int64(failed) || at >= int64(failed+after) {
						return errDead
					}
					return nil
				}
				w.bank.fails(func(context.Context, bool, license.Transfer) fault {
					if n.Load() > int64(failed+after) {
						return fault{before: errDead}
					}
					return fault{}
				})
				w.bank.buy("s", 200)
				w.open(50)
				for range 3 {
					for range 30 {
						_ = w.call(t.Context(), "s", 1)
						time.Sleep(500 * time.Millisecond)
						synctest.Wait()
						w.balanced("s")
					}
					time.Sleep(idleAfter + 2*sweepEvery) // they are returned
					synctest.Wait()
					w.balanced("s")
				}
				w.byHand("s", 5)
				w.die()
				reached = n.Load() > int64(failed)
				w.step = nil
				w.bank.fails(nil)
				w.open(50)
				synctest.Wait()
				w.balanced("s")
				for range 3 {
					w.use("s", 1)
					time.Sleep(15 * time.Second) // a pause after a failure is over by then
					synctest.Wait()
				}
				require.EqualValues(t, 200, w.used.since("s"), "step %d, and then step %d", failed, failed+after)
				w.die()
			})
		}
		if !reached {
			require.Greater(t, failed, 15)
			return
		}
		if testing.Short() {
			failed += 2
		}
	}
}

// An outcome that can't be noted at once is not asked for again.
func TestOutcomeIsNotedLater(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
			var full atomic.Bool
			w.step = func(string) error {
				if full.Load() {
					return errors.New("disk full")
				}
				return nil
			}
			w.bank.forgets = true
			w.bank.buy("s", 100)
			w.open(50)
			if back {
				require.NoError(t, w.call(t.Context(), "s", 1))
			}
			w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault { full.Store(!read); return fault{} })
			if back {
				time.Sleep(idleAfter + 2*sweepEvery)
			} else {
				require.True(t, isWait(w.call(t.Context(), "s", 1)))
			}
			require.ErrorContains(t, w.p.Health(), "disk full")
			w.bank.fails(nil)
			full.Store(false)
			time.Sleep(2*maxPause + 2*sweepEvery)
			require.NoError(t, w.p.Health())
			require.NoError(t, w.call(t.Context(), "s", 1))
			w.balanced("s")
			require.Empty(t, w.f.Known("s").now().Aside)
			require.NoError(t, w.close(t.Context()))
			bought, left := w.bank.state("s")
			require.Equal(t, bought, left+w.used.of("s").counted)
		})
	}
}

// Random work, debts among it, under random faults of balance and disk, restarts and
// deaths: at every moment what was bought is somewhere, by memory and by the file.
func TestConservation(t *testing.T) {
	t.Parallel()
	rounds := 16
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 3))
			subjects := []string{"a", "b", "c"}
			w := newWorld(t, 1+r.Int64N(50))
			w.bank.forgets = seed%4 == 3
			var mu sync.Mutex
			faulty := func(_ context.Context, _ bool, t license.Transfer) fault {
				mu.Lock()
				defer mu.Unlock()
				n := r.IntN(12)
				if n == 2 && t.Doubt {
					n = 0 // a Balance that says so must be sure
				}
				switch n {
				case 0:
					return fault{before: errNet}
				case 1:
					return fault{after: errNet}
				case 2:
					return fault{before: fmt.Errorf("%w: no", license.ErrNotApplied)}
				case 3:
					return fault{panics: true}
				}
				return fault{}
			}
			pick := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return r.IntN(n)
			}
			w.bank.fails(faulty)
			var sick atomic.Bool // the disk
			w.step = func(what string) error {
				if sick.Load() && pick(3) == 0 {
					return fmt.Errorf("can't %s", what)
				}
				return nil
			}
			w.die()
			w.open(10)
			for range 400 {
				s := subjects[pick(3)]
				sick.Store(seed%2 == 1 && pick(4) == 0)
				switch pick(22) {
				case 20:
					w.byHand(s, int64(pick(30)))
				case 21:
					if a := w.f.Known(s); a != nil {
						if aside := a.now().Aside; len(aside) > 0 { // a person who asks the bank
							d := aside[0]
							_ = w.p.Settle(t.Context(), d.ID, w.bank.knows(d.ID) != (d.Why == lostReturn), "")
						}
					}
				case 0:
					w.bank.buy(s, int64(pick(100)))
				case 1:
					time.Sleep(time.Duration(pick(int(2 * idleAfter))))
				case 2:
					w.die()
					w.open(1 + int64(pick(50)))
				case 3:
					_ = w.close(t.Context())
					w.open(1 + int64(pick(50)))
				default:
					_ = w.call(t.Context(), s, int64(pick(8)))
					time.Sleep(time.Duration(pick(int(time.Second))))
				}
				synctest.Wait()
				for _, s := range subjects {
					w.balanced(s)
				}
			}
			sick.Store(false)
			w.bank.fails(nil)
			time.Sleep(5*maxPause + 5*sweepEvery)
			require.NoError(t, w.close(t.Context()))
			for _, s := range subjects {
				w.balanced(s)
				bought, left := w.bank.state(s)
				unused, doubtful := w.here(s)
				require.LessOrEqual(t, unused, int64(0), "all was returned, and a debt stays")
				if !w.bank.forgets {
					require.Zero(t, doubtful)
					require.Equal(t, bought, left+w.used.since(s)+unused)
				}
			}
		})
	}
}
