package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// busy is the error of a server that says when to come back.
type busy time.Duration

func (e busy) Error() string             { return "busy" }
func (e busy) RetryAfter() time.Duration { return time.Duration(e) }

// down lets the first calls time out, so that who waits for them loses time.
func (w world) down() {
	before := w.server.asked()
	w.server.set(license.Verdict{}, errDown)
	w.server.slow(2 * time.Second)
	for i := range failuresToOpen {
		w.unknown(fmt.Sprint("first", i))
	}
	w.asked(before + failuresToOpen)
}

func TestWhileTheServerIsDownNobodyWaits(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.down()
		began := time.Now()
		for i := range 100 {
			err := w.unknown(fmt.Sprint("cold", i))
			require.ErrorIs(w, err, errDown)
			require.EqualError(w, err, "cache: Checker not asked for another 1s, for its last calls have failed: license server is down")
			told, ok := errors.AsType[interface {
				error
				RetryAfter() time.Duration
			}](err)
			require.True(w, ok)
			require.Equal(w, time.Second, told.RetryAfter())
		}
		require.Zero(w, time.Since(began))
		w.asked(failuresToOpen)
		require.EqualError(w, w.Health(), "cache: the Checker does not answer (questions in a row: 5): "+
			"customers are let through as long as Config.Grace lasts, and nobody else; put right what it says: license server is down")
	})
}

func TestOneProbeAtATimeAndPausesThatGrow(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.down()
		for i, pause := range []time.Duration{1, 2, 4, 8, 10, 10} {
			time.Sleep(pause*time.Second - 1)
			w.unknown("cold")
			w.asked(failuresToOpen + i)
			time.Sleep(1)
			probe := make(chan error)
			go func() {
				_, err := w.Check(context.Background(), ask("probe"))
				probe <- err
			}()
			w.settle()
			began := time.Now()
			require.ErrorContains(w, w.unknown("cold"), "for another 0s")
			require.Zero(w, time.Since(began))
			w.asked(failuresToOpen + i + 1)
			require.EqualError(w, <-probe, "cache: Checker: license server is down")
		}
	})
}

func TestTheFirstAnswerClosesTheCircuit(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]license.Verdict{"allowed": allow("cus_1"), "denied": deny(license.NotFound), "nonsense": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{Rate: 1e6}, func(w world) {
				w.down()
				w.server.slow(0)
				w.server.set(answer, nil)
				time.Sleep(firstPause)
				_, _ = w.Check(w.Context(), ask("probe"))
				if name == "nonsense" {
					require.ErrorContains(w, w.Health(), "answered neither allowed nor denied", "callers are refused all the same")
				} else {
					require.NoError(w, w.Health())
				}
				w.server.set(allow("cus_2"), nil)
				for i := range 10 {
					w.answer(fmt.Sprint("cold", i), license.Allowed)
				}
				w.server.set(license.Verdict{}, errDown)
				for i := range failuresToOpen { // counted from the start again
					require.EqualError(w, w.unknown(fmt.Sprint("bad", i)), "cache: Checker: license server is down")
				}
			})
		})
	}
}

func TestTheServerAsksForAPause(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ asks, gets time.Duration }{
		"short":    {100 * time.Millisecond, time.Second},
		"long":     {time.Minute, time.Minute},
		"too long": {time.Hour, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{}, func(w world) {
				w.server.set(license.Verdict{}, fmt.Errorf("said: %w", busy(test.asks)))
				w.unknown("a")
				w.unknown("a")
				w.asked(1)
				w.server.set(allow("cus_1"), nil)
				time.Sleep(test.gets - 1)
				w.unknown("a")
				time.Sleep(1)
				w.answer("a", license.Allowed)
				w.asked(2)
			})
		})
	}
}

// A Checker may fail at keys that somebody makes up.
func TestStrangersDoNotPauseCustomers(t *testing.T) {
	t.Parallel()
	down := false
	bubble(t, Config{Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		if down || q.Key != license.NewKey("k") {
			return license.Verdict{}, errDown
		}
		return allow("cus_1"), nil
	})}, func(w world) {
		w.allowed("k")
		time.Sleep(6 * time.Minute)
		w.unknown("made up")
		require.NoError(w, w.Health(), "one key of a stranger's says nothing")
		for i := range 10 {
			w.unknown(fmt.Sprint("bad", i))
		}
		require.Error(w, w.Health())
		w.allowed("k")
		w.settle()
		require.NoError(w, w.Health(), "the customer's refresh has found the server")
		down = true
		for range failuresToOpen {
			time.Sleep(6 * time.Minute)
			w.allowed("k")
			w.settle()
		}
		require.ErrorContains(w, w.unknown("stranger"), "not asked", "strangers learn from customers")
	})
}

// malformed is the error of a Checker that can't make sense of a query.
type malformed struct{}

func (malformed) Error() string    { return "faulty input" }
func (malformed) AboutQuery() bool { return true }

// After a restart without a File everybody is a stranger, and somebody presents made-up
// keys all the time that the license server answers with an error.
func TestMalformedKeysKeepNobodyFromTheServer(t *testing.T) {
	t.Parallel()
	var down, slow bool
	calls := 0
	bubble(t, Config{Rate: 1e6, Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		calls++
		if slow {
			time.Sleep(time.Second)
		}
		switch {
		case down:
			return license.Verdict{}, errDown
		case strings.HasPrefix(q.Key.Reveal(), "real"):
			return allow("cus_1"), nil
		}
		return license.Verdict{}, fmt.Errorf("asked: %w", malformed{})
	})}, func(w world) {
		made := 0
		flood := func() {
			for range 100 {
				made++
				w.unknown(fmt.Sprint("bad", made))
			}
		}
		flood()
		require.NoError(w, w.Health())
		w.answer("real1", license.Allowed)
		down = true
		flood()
		require.Error(w, w.Health(), "the server is down")
		down, calls = false, 0
		for range 30 { // as often as it may be asked
			time.Sleep(time.Second)
			w.unknown(fmt.Sprint("bad", calls))
			w.settle()
		}
		require.GreaterOrEqual(w, calls, 29)
		require.Error(w, w.Health(), "a malformed key proves nothing")
		slow = true
		go w.Check(context.Background(), ask("bad probe"))
		w.settle()
		require.ErrorContains(w, w.unknown("real2"), "not asked", "one at a time")
		time.Sleep(time.Second)
		w.settle()
		w.answer("real2", license.Allowed)
		require.NoError(w, w.Health())
	})
}

func TestALateFailureIsNoNews(t *testing.T) {
	t.Parallel()
	var c circuit
	for i := range failuresToOpen {
		require.NoError(t, c.refusal(0), i)
		c.fail(0, c.depart(), errDown)
	}
	require.Error(t, c.refusal(firstPause-1))
	require.NoError(t, c.refusal(firstPause))
	c.fail(firstPause/2, false, errDown)
	require.NoError(t, c.refusal(firstPause))
	require.True(t, c.depart())
	c.fail(firstPause, false, errDown)
	require.Error(t, c.refusal(time.Hour), "the probe is still under way")
	c.fail(firstPause, true, errDown)
	require.Error(t, c.refusal(3*firstPause-1))
	require.NoError(t, c.refusal(3*firstPause))
	c = circuit{}
	c.fail(0, true, errDown)
	require.NoError(t, c.refusal(0), "a probe of a circuit that was closed meanwhile")
	c.fail(0, true, busy(time.Minute))
	require.Error(t, c.refusal(time.Minute-1))
}

// Nobody else hears of it while grace lasts.
func TestFailuresAreLoggedOnceAMinute(t *testing.T) {
	t.Parallel()
	log := &journal{}
	bubble(t, Config{Logger: log.logger()}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		w.server.set(license.Verdict{}, errDown)
		for range 6 * 10 {
			w.allowed("k")
			w.settle()
			time.Sleep(10 * time.Second)
		}
		require.Equal(w, 10, strings.Count(log.String(), `error="cache: Checker: license server is down"`))
		require.NotContains(w, log.String(), "stack")
	})
	bubble(t, Config{Logger: log.logger(), Checker: license.CheckerFunc(func(context.Context, license.Query) (license.Verdict, error) {
		panic("secret")
	})}, func(w world) {
		w.unknown("k")
		w.settle()
		require.Contains(w, log.String(), "TestFailuresAreLoggedOnceAMinute")
		require.NotContains(w, log.String(), "secret")
	})
}
