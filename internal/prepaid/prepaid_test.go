package prepaid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

var errDead = errors.New("the process is dead")

func isEmpty(err error) bool { _, ok := errors.AsType[*EmptyError](err); return ok }
func isWait(err error) bool  { _, ok := errors.AsType[*WaitError](err); return ok }

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
			left, err := a.left()
			require.NoError(t, err)
			require.LessOrEqual(t, left, int64(150))
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
		require.Less(t, asked.Load(), int64(20))
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
		require.True(t, w.used.reserve("s", a.Limit(), 40))
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
		w.used.commit("s", 0)
		w.used.mu.Lock()
		w.used.by["s"].counted += 49
		w.used.mu.Unlock()
		require.Equal(t, 50, w.use("s", 1))
		w.balanced("s")
		w.die()
	})
}

// Counts that a power cut has lost were used all the same.
func TestLostCountsAreNotUnits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 100)
		for range 60 {
			require.NoError(t, w.call(t.Context(), "s", 1))
		}
		synctest.Wait()
		w.die()
		marked := w.p.file.states[owner{name, "s"}].Mark
		require.GreaterOrEqual(t, marked, int64(50))
		w.used.by["s"].counted = 20
		w.open(10)
		require.Equal(t, int(100-marked), w.use("s", 1))
		w.die()
	})
}

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
					time.Sleep(maxPause + sweepEvery)
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
					time.Sleep(idleAfter + 2*maxPause)
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
			time.Sleep(2 * maxPause)
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

// A transfer is on the disk before it is sent, and its outcome before it counts.
func TestTransfersAreSyncedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 100)
		var synced []byte
		var bad atomic.Int64
		path := filepath.Join(w.dir, fileName)
		w.p.file.sync = func(f *os.File) (err error) {
			synced, err = os.ReadFile(f.Name())
			if err != nil { // it was renamed since
				synced, err = os.ReadFile(path)
			}
			return err
		}
		w.bank.fails(func(_ context.Context, read bool, tr license.Transfer) fault {
			if !read && !bytes.Contains(synced, []byte(tr.ID)) {
				bad.Add(1)
			}
			return fault{}
		})
		for range 30 {
			require.NoError(t, w.call(t.Context(), "s", 1))
			synctest.Wait()
			require.Contains(t, string(synced), fmt.Sprintf(`"limit":%d,`, w.f.Known("s").Limit()))
		}
		require.NoError(t, w.close(t.Context()))
		require.Zero(t, bad.Load())
	})
}

// A file cut anywhere, as by a power cut, says what was durable before.
func TestTornFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.bank.buy("s", 1000)
	for range 25 {
		require.NoError(t, w.call(t.Context(), "s", 1))
	}
	w.die()
	path := filepath.Join(w.dir, fileName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	last := int64(0)
	for cut := range whole {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o600))
		b := file{dir: w.dir}
		damaged, isCopy, err := b.open()
		require.NoError(t, err)
		require.Zero(t, damaged)
		require.False(t, isCopy)
		if s := b.states[owner{name, "s"}]; s != nil {
			require.GreaterOrEqual(t, s.Limit, last)
			last = s.Limit
		}
	}
	require.Greater(t, last, int64(0))
	whole[len(whole)/2] ^= 1
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	w.open(10)
	require.ErrorContains(t, w.p.Health(), "1 damaged line")
	w.die()
}

// The units that a copied directory held are in doubt there.
func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100)
	w.bank.buy("s", 1000)
	for range 10 {
		require.NoError(t, w.call(t.Context(), "s", 1))
	}
	w.die()
	path := filepath.Join(w.dir, fileName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	w.dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, fileName), whole, 0o600))
	for range 2 { // it stays so, written or not
		w.open(100)
		require.Eventually(t, func() bool { return len(w.f.Known("s").now().Aside) == 1 }, 5*time.Second, time.Millisecond)
		require.EqualValues(t, 90, w.f.Known("s").now().Aside[0].Units)
		require.ErrorContains(t, w.p.Health(), "copy")
		require.NoError(t, w.call(t.Context(), "s", 1))
		w.die()
		w.used.by["s"].counted = 10
	}
}

// Another balance is not given what was drawn from the one before.
func TestAnotherBalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100)
	w.bank.buy("s", 100)
	require.NoError(t, w.call(t.Context(), "s", 1))
	w.die()
	w.bank.address = "elsewhere"
	w.open(100)
	require.True(t, isEmpty(w.call(t.Context(), "s", 1)))
	require.NoError(t, w.close(t.Context()))
	require.ErrorContains(t, w.p.Health(), "99 prepaid units are in doubt")
	_, left := w.bank.state("s")
	require.Zero(t, left)
}

// Random work under random faults, restarts and deaths: at every moment what was bought
// is somewhere.
func TestConservation(t *testing.T) {
	t.Parallel()
	rounds := 24
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
			for range 400 {
				s := subjects[pick(3)]
				switch pick(20) {
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
			mu.Lock()
			w.bank.fails(nil)
			mu.Unlock()
			time.Sleep(5 * maxPause)
			require.NoError(t, w.close(t.Context()))
			for _, s := range subjects {
				w.balanced(s)
				bought, left := w.bank.state(s)
				unused, doubtful := w.here(s)
				require.LessOrEqual(t, unused, int64(0), "all was returned")
				if !w.bank.forgets {
					require.Zero(t, doubtful)
					require.Equal(t, bought, left+w.used.of(s).counted)
				}
			}
		})
	}
}
