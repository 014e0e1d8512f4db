package cache

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func answers(v license.Verdict, err error) license.CheckerFunc {
	return func(context.Context, license.Query) (license.Verdict, error) { return v, err }
}

func exit() { runtime.Goexit() }

func TestAThousandAskOnce(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.server.slow(time.Second)
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { w.answer("k", license.Allowed) })
		}
		all.Wait()
		w.asked(1)
	})
}

// Without fake time, the thousand also meet the moment in which the answer lands.
func TestAThousandAskOnceInARush(t *testing.T) {
	t.Parallel()
	s := &server{verdict: allow("cus_1")}
	c := New(Config{Checker: s})
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if v, err := c.Check(context.Background(), ask("k")); err != nil || v.Subject != "cus_1" {
				t.Error(v, err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, s.asked())
	require.NoError(t, c.Close())
}

// An answer may land between a caller's look and its turn to ask.
func TestWhoComesLateFindsTheAnswer(t *testing.T) {
	t.Parallel()
	for _, verdict := range []license.Verdict{allow("cus_1"), deny(license.Blocked)} {
		bubble(t, Config{Checker: answers(verdict, nil)}, func(w world) {
			_, err := w.Check(w.Context(), ask("k"))
			require.NoError(t, err)
			f, v, err := w.board(w.Context(), ask("k"), w.identify(ask("k")))
			require.NoError(t, err)
			require.Nil(t, f)
			require.Equal(t, verdict, v)
		})
	}
}

func TestACallerWhoLeavesCancelsNobody(t *testing.T) {
	t.Parallel()
	type name struct{}
	var seen any
	s := &server{verdict: allow("cus_1"), delay: time.Second}
	checker := license.CheckerFunc(func(ctx context.Context, q license.Query) (license.Verdict, error) {
		seen = ctx.Value(name{})
		return s.Check(ctx, q)
	})
	bubble(t, Config{Checker: checker}, func(w world) {
		ctx, leave := context.WithCancel(context.WithValue(w.Context(), name{}, "first"))
		first := make(chan error)
		go func() {
			_, err := w.Check(ctx, ask("k"))
			first <- err
		}()
		synctest.Wait()
		second := make(chan error)
		go func() {
			_, err := w.Check(context.Background(), ask("k"))
			second <- err
		}()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-first, context.Canceled)
		require.NoError(t, <-second)
		require.Equal(t, "first", seen, "values of the caller's context")
		require.Equal(t, 1, s.asked())
		_, err := w.Check(ctx, ask("k"))
		require.NoError(t, err, "memory needs no context")
		_, err = w.Check(ctx, ask("cold"))
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Equal(t, 1, s.asked(), "nobody would have waited")
	})
}

func TestACallEnds(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.server.slow(time.Hour)
		before := time.Now()
		require.ErrorIs(t, w.unknown("k"), context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(before))
	})
}

func TestRate(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Rate: 4}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		for _, key := range []string{"a", "b", "c"} {
			w.answer(key, license.Allowed)
		}
		w.asked(4)
		err := w.unknown("d")
		require.EqualError(t, err, "cache: Checker not asked: the 4 calls a second of Config.Rate are used up")
		w.asked(4)
		w.server.set(allow("cus_2"), nil)
		w.allowed("k") // strangers left one call for it
		w.asked(5)
		require.Equal(t, "cus_2", w.allowed("k").Subject)
		time.Sleep(time.Second)
		w.answer("d", license.Allowed)
		w.asked(6)
	})
}

func TestOverTheRateStaleIsAnswered(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Rate: 0.001}, func(w world) {
		w.allowed("k")
		time.Sleep(6 * time.Minute)
		w.allowed("k") // no call is to be had
		w.asked(1)
		time.Sleep(20 * time.Minute)
		w.allowed("k")
		w.asked(2)
		time.Sleep(25 * time.Hour)
		w.answer("k", license.Allowed)
		w.asked(3)
		time.Sleep(time.Second)
		w.InvalidateAll()
		require.ErrorContains(t, w.unknown("k"), "Config.Rate")
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		w.server.slow(5 * time.Second)
		w.allowed("k") // refreshes
		waiting := make(chan error)
		go func() {
			_, err := w.Check(context.Background(), ask("cold"))
			waiting <- err
		}()
		synctest.Wait()
		before := time.Now()
		require.NoError(t, w.Close())
		require.Zero(t, time.Since(before), "calls were not canceled")
		require.Zero(t, len(w.server.flying), "calls were not waited for")
		require.ErrorIs(t, <-waiting, context.Canceled)
		w.allowed("k")
		time.Sleep(time.Minute)
		w.allowed("k")
		require.ErrorIs(t, w.unknown("cold"), errClosed)
		w.asked(3)
	})
}

type closer struct {
	server
	closed int
}

func (c *closer) Close() error { c.closed++; return errDown }

func TestCloseClosesTheCheckerOnce(t *testing.T) {
	t.Parallel()
	s := &closer{}
	c := New(Config{Checker: s})
	for range 2 {
		require.ErrorIs(t, c.Close(), errDown)
	}
	require.Equal(t, 1, s.closed)
	require.NoError(t, New(Config{Checker: (*closer)(nil)}).Close())
	require.NoError(t, New(Config{}).Close())
}

// Everything at once, for the race detector; and no caller gets another's verdict.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	keys := []string{"a", "b", "c", "d", "e", "f"}
	var n int
	var mu sync.Mutex
	r := &reader{}
	c := New(Config{Size: 4, NegativeMax: 2, Rate: 1e6, Fresh: time.Microsecond, Negative: time.Microsecond,
		File: filepath.Join(t.TempDir(), "verdicts"), MeterProvider: r, Logger: slog.New(slog.DiscardHandler),
		Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
			mu.Lock()
			defer mu.Unlock()
			switch n++; n % 5 {
			case 0:
				return license.Verdict{}, errDown
			case 1:
				v := deny(license.Blocked)
				v.Subject = q.Key.Reveal()
				return v, nil
			}
			return allow(q.Key.Reveal()), nil
		})})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 500 {
				key := keys[(g+i)%len(keys)]
				v, err := c.Check(context.Background(), ask(key))
				if err == nil && v.Subject != key || err != nil && !errors.Is(err, errDown) {
					t.Error(v, err)
				}
				if k, err := c.Key(context.Background(), key); err == nil && k != license.NewKey(key) {
					t.Error("another's key")
				}
				switch i % 50 {
				case 10:
					c.Invalidate(license.NewKey(key))
				case 20:
					c.InvalidateSubject(key)
				case 30:
					c.InvalidateAll()
				case 40:
					c.file.flush()
					_ = r.collect(t)
					if err := c.Health(); err != nil && !errors.Is(err, errDown) {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	require.NoError(t, c.Close())
	require.LessOrEqual(t, c.allowed.Len(), 4)
	require.Equal(t, c.allowed.Len(), listed(c))
	require.LessOrEqual(t, c.denied.Len(), 2)
	require.Empty(t, c.flights)
}
