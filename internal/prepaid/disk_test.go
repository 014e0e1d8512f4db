package prepaid

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// A decision stays, also when the outcome of a transfer waits to be noted, and is made once.
func TestDecisionBehindAFullDisk(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} { // the doubt itself waits to be noted
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 100)
			w.bank.forgets = true
			w.bank.buy("s", 1000)
			var full atomic.Bool
			w.step = func(string) error {
				if full.Load() {
					return errors.New("disk full")
				}
				return nil
			}
			if before {
				require.NoError(t, w.call(t.Context(), "s", 1))
				w.die()
				w.bank.address = "another"
				full.Store(true)
			} else {
				w.die()
				w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault {
					if read {
						return fault{}
					}
					return fault{after: errNet}
				})
			}
			w.open(100)
			if !before {
				require.Error(t, w.call(t.Context(), "s", 1))
				w.bank.fails(nil)
				time.Sleep(2 * sweepEvery)
				w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault { full.Store(!read); return fault{} })
				require.Error(t, w.call(t.Context(), "s", 1), "drawn, and can't be noted")
			}
			synctest.Wait()
			doubts := w.f.Known("s").now().Aside
			require.Len(t, doubts, 1)
			d := doubts[0]
			require.Error(t, w.p.Settle(t.Context(), d.ID, true, ""), "the disk is full")
			full.Store(false)
			w.bank.fails(nil)
			require.NoError(t, w.p.Settle(t.Context(), d.ID, true, "they were taken"))
			held := w.f.Known("s").now().Drawn
			require.EqualValues(t, map[bool]int64{true: 100, false: 200}[before], held)
			for range 2 {
				time.Sleep(2 * sweepEvery)
				require.NoError(t, w.p.Health())
				require.ErrorIs(t, w.p.Settle(t.Context(), d.ID, true, "again"), ErrUnknown)
				require.Equal(t, held, w.f.Known("s").now().Drawn)
				w.balanced("s")
				w.die()
				w.open(100)
			}
			w.die()
		})
	}
}

// A note that is in the file though its sync failed gives nobody anything: not this
// process, and not the one after it.
func TestNoteThatWasNotSynced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
		w.bank.buy("s", 100)
		var broken atomic.Bool
		w.step = func(what string) error {
			if broken.Load() && what != "append" {
				return errors.New("input/output error")
			}
			return nil
		}
		w.open(100)
		require.NoError(t, w.call(t.Context(), "s", 1))
		broken.Store(true)
		time.Sleep(idleAfter + sweepEvery) // they would be returned
		synctest.Wait()
		w.balanced("s")
		require.True(t, isWait(w.call(t.Context(), "s", 1)), "the file may say that they are on their way")
		broken.Store(false)
		time.Sleep(maxPause)
		require.NoError(t, w.call(t.Context(), "s", 98))
		w.balanced("s")
		w.die()
		w.open(100)
		synctest.Wait()
		w.balanced("s")
		require.Equal(t, 1, w.use("s", 1))
		w.die()
	})
}

// However a Balance's errors are made, they end no process.
func TestErrorsThatPanic(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]error{"typed nil": (*badError)(nil), "all of it": &badError{panics: true}} {
		for _, inMove := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 100)
				w.bank.buy("s", 100)
				w.bank.fails(func(_ context.Context, read bool, _ license.Transfer) fault {
					if read == inMove {
						return fault{}
					}
					return fault{before: bad}
				})
				require.True(t, isWait(w.call(t.Context(), "s", 1)), name)
				require.NotContains(t, w.p.Health().Error(), "secret")
				w.bank.fails(nil)
				time.Sleep(sweepEvery)
				require.Equal(t, 100, w.use("s", 1), name)
				w.balanced("s")
				w.die()
			})
		}
	}
}

type badError struct {
	after  time.Duration
	panics bool
}

func (e *badError) Error() string {
	if e != nil && e.panics {
		panic("secret")
	}
	return "not now"
}
func (e *badError) Is(error) bool             { return e.panics && e.Error() == "" }
func (e *badError) RetryAfter() time.Duration { return e.after }

// Many subjects share the writes to the file, and what fails of one fails of none for
// good.
func TestManySubjectsOnAFailingDisk(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
	var n atomic.Int64
	w.step = func(string) error {
		if n.Add(1)%7 == 0 {
			return errors.New("disk full")
		}
		return nil
	}
	w.open(3)
	subjects := make([]string, 24)
	var all sync.WaitGroup
	for i := range subjects {
		subjects[i] = fmt.Sprint("s", i)
		w.bank.buy(subjects[i], 50)
		all.Go(func() {
			for range 20 {
				_ = w.call(context.Background(), subjects[i], 1)
			}
		})
	}
	all.Wait()
	w.die()
	require.Greater(t, n.Load(), int64(14))
	for _, s := range subjects {
		w.balanced(s)
	}
	w.step = nil
	w.open(3)
	require.NoError(t, w.close(t.Context()))
	for _, s := range subjects {
		w.balanced(s)
		bought, left := w.bank.state(s)
		require.Equal(t, bought, left+w.used.of(s).counted)
	}
}
