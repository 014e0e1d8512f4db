package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestFresh(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(5*time.Minute - 1)
		w.server.set(deny(license.Blocked), nil)
		require.Equal(t, "cus_1", w.allowed("k").Subject)
		w.asked(1)
		w.answer("other", license.Denied)
		w.asked(2)
	})
}

func TestStaleIsAnsweredWhileOneRefreshRuns(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(5 * time.Minute)
		w.server.set(allow("cus_2"), nil)
		w.server.slow(9 * time.Second)
		for range 100 {
			require.Equal(t, "cus_1", w.allowed("k").Subject)
		}
		w.asked(2)
		time.Sleep(8 * time.Second)
		require.Equal(t, "cus_1", w.allowed("k").Subject)
		w.asked(2)
		time.Sleep(time.Second)
		w.settle()
		require.Equal(t, "cus_2", w.allowed("k").Subject)
		time.Sleep(5*time.Minute - 1) // fresh again, since the answer
		w.allowed("k")
		w.asked(2)
	})
}

func TestGrace(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		w.allowed("k") // the refresh is the last good answer
		w.settle()
		w.server.set(license.Verdict{}, errDown)
		last := time.Now()
		for time.Since(last) < 24*time.Hour {
			w.allowed("k")
			time.Sleep(time.Hour)
			w.settle()
		}
		err := w.unknown("k")
		require.ErrorIs(t, err, errDown)
		require.EqualError(t, err, "cache: Checker: license server is down")
		w.server.set(allow("cus_1"), nil) // nothing was stored
		time.Sleep(longestPause)
		w.allowed("k")
	})
}

func TestAnOutageIsNotAskedAtEveryCheck(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		w.server.set(license.Verdict{}, errDown)
		for range 60 { // a minute
			for range 10 {
				w.allowed("k")
				w.settle()
			}
			time.Sleep(time.Second)
		}
		w.asked(1 + 6)
	})
}

func TestNoGraceWaitsForTheAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Grace: NoGrace}, func(w world) {
		w.allowed("k")
		time.Sleep(5 * time.Minute)
		w.server.set(allow("cus_2"), nil)
		require.Equal(t, "cus_2", w.allowed("k").Subject)
		time.Sleep(5 * time.Minute)
		w.server.set(license.Verdict{}, errDown)
		require.ErrorIs(t, w.unknown("k"), errDown)
	})
}

func TestRevocationBeatsGrace(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.allowed("k")
		time.Sleep(time.Hour)
		w.server.set(deny(license.Blocked), nil)
		w.allowed("k") // brings the denial
		w.asked(2)
		require.Equal(t, license.Blocked, w.answer("k", license.Denied).Reason)
		w.server.set(license.Verdict{}, errDown)
		time.Sleep(30*time.Second - 1)
		w.answer("k", license.Denied)
		w.asked(2)
		time.Sleep(1)
		require.Equal(t, license.Blocked, w.answer("k", license.Denied).Reason, "asked in vain, it stands")
		w.asked(3)
		w.server.set(allow("cus_1"), nil)
		w.allowed("k")
		w.server.set(license.Verdict{}, errDown)
		w.allowed("k") // the denial is gone
		w.asked(4)
		time.Sleep(24 * time.Hour)
		w.unknown("k")
	})
}

// A denial that an answer has ended does not come back.
func TestADenialEndsWhenTheCustomerIsAllowed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Grace: time.Hour}, func(w world) {
		w.server.set(deny(license.Unpaid), nil)
		w.answer("k", license.Denied)
		time.Sleep(time.Minute)
		w.server.set(allow("cus_1"), nil)
		w.answer("k", license.Allowed)
		require.Zero(w, w.Cache.denied.Len())
	})
}

// A key that is blocked is blocked for every feature, whatever was asked first.
func TestRevocationIsOfTheKey(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reason license.Reason
		others license.Status
	}{
		"blocked":      {license.Blocked, license.Denied},
		"expired":      {license.Expired, license.Denied},
		"not found":    {license.NotFound, license.Denied},
		"not entitled": {license.NotEntitled, license.Allowed},
		"unpaid":       {license.Unpaid, license.Allowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{Fresh: time.Hour, Rate: 1e6}, func(w world) {
				feature := func(key, name, machine string) license.Verdict {
					v, err := w.Check(w.Context(), license.Query{Key: license.NewKey(key), Feature: name, Machine: machine})
					require.NoError(w, err)
					return v
				}
				feature("k", "b", "")
				feature("k", "b", "m")
				feature("other", "b", "")
				time.Sleep(time.Minute)
				w.answer("k", license.Allowed)
				time.Sleep(time.Hour - time.Minute)
				feature("k", "c", "") // fresh
				w.server.set(deny(test.reason), nil)
				w.allowed("k")
				time.Sleep(time.Minute)
				w.allowed("k") // brings the denial
				w.settle()
				w.server.set(license.Verdict{}, errDown)
				w.answer("k", license.Denied)
				for _, machine := range []string{"", "m"} {
					require.Equal(w, test.others, feature("k", "b", machine).Status)
				}
				require.Equal(w, test.others, feature("k", "c", "").Status)
				require.Equal(w, license.Allowed, feature("other", "b", "").Status)
				w.server.set(allow("cus_1"), nil)
				require.Equal(w, license.Allowed, feature("k", "b", "").Status, "asked again at once")
			})
		})
	}
}

// What was asked before a key was found blocked, and is answered after, is not kept.
func TestRevocationEndsFlightsOfTheKey(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	bubble(t, Config{Checker: license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		if q.Feature == "slow" {
			<-block
			return allow("cus_1"), nil
		}
		if time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) < time.Hour {
			return allow("cus_1"), nil
		}
		return deny(license.Blocked), nil
	})}, func(w world) {
		block = make(chan struct{}) // of the bubble
		w.allowed("k")
		time.Sleep(time.Hour)
		go func() { _, _ = w.Check(context.Background(), license.Query{Key: license.NewKey("k"), Feature: "slow"}) }()
		w.settle()
		w.allowed("k")
		w.settle()
		w.answer("k", license.Denied)
		close(block)
		w.settle()
		require.Zero(w, w.Cache.allowed.Len())
	})
}

func TestADenialStandsWhileTheServerIsDown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		verdict license.Verdict
		grace   time.Duration
		stands  time.Duration
	}{
		"blocked":             {deny(license.Blocked), 0, 24 * time.Hour},
		"without grace":       {deny(license.Blocked), NoGrace, 30 * time.Second},
		"of the moment":       {deny(license.TooFast), 0, 30 * time.Second},
		"of the month":        {deny(license.OverQuota), 0, 30 * time.Second},
		"of the server":       {deny(license.Unavailable), 0, 30 * time.Second},
		"until a stated time": {license.Verdict{Status: license.Denied, Until: time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)}, 0, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config{Grace: test.grace}, func(w world) {
				w.server.set(test.verdict, nil)
				w.answer("k", license.Denied)
				w.server.set(license.Verdict{}, errDown)
				time.Sleep(test.stands - 1)
				w.answer("k", license.Denied)
				gone, leave := context.WithCancel(w.Context())
				leave()
				v, err := w.Check(gone, ask("k"))
				require.NoError(w, err, "no way around it")
				require.Equal(w, license.Denied, v.Status)
				w.Cache.Invalidate(license.NewKey("other"))
				w.answer("k", license.Denied)
				time.Sleep(1)
				w.unknown("k")
			})
		})
	}
}

func TestADeniedCallerWhoPaysIsAllowed(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Fresh: time.Second, Grace: NoGrace}, func(w world) {
		w.server.set(deny(license.Unpaid), nil)
		w.answer("k", license.Denied)
		w.server.set(allow("cus_1"), nil)
		w.Invalidate(ask("k").Key)
		w.answer("k", license.Allowed)
	})
}

func TestUntil(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		v := allow("cus_1")
		v.Until = time.Now().Add(time.Minute)
		w.server.set(v, nil)
		w.allowed("k")
		time.Sleep(time.Minute - 1)
		w.allowed("k")
		w.asked(1)
		time.Sleep(1)
		w.server.set(license.Verdict{}, errDown)
		require.ErrorIs(t, w.unknown("k"), errDown)
		w.server.set(v, nil) // the server has not noticed
		require.ErrorContains(t, w.unknown("k"), "a time that has passed")
		v.Until = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		w.server.set(v, nil)
		w.allowed("k")
		w.allowed("k")
		w.asked(4)
	})
}

func TestADenialEndsAtItsUntil(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		v := deny(license.TooFast)
		v.Until = time.Now().Add(time.Second)
		w.server.set(v, nil)
		w.answer("k", license.Denied)
		w.answer("k", license.Denied)
		w.asked(1)
		time.Sleep(time.Second)
		w.server.set(allow("cus_1"), nil)
		w.allowed("k")
	})
}

// What is no answer does not replace one, and is not remembered.
func TestNonsenseIsUnknown(t *testing.T) {
	t.Parallel()
	ended := allow("cus_1")
	ended.Until = time.Unix(1, 0)
	for name, test := range map[string]struct {
		checker license.CheckerFunc
		says    string
	}{
		"unknown":        {answers(license.Verdict{}, nil), "neither allowed nor denied"},
		"no such status": {answers(license.Verdict{Status: 7, Subject: "cus_1"}, nil), "neither allowed nor denied"},
		"nobody to bill": {answers(allow(""), nil), "without a Subject"},
		"ended":          {answers(ended, nil), "a time that has passed"},
		"denied, error":  {answers(deny(license.Blocked), errDown), "license server is down"},
		"allowed, error": {answers(allow("cus_1"), errDown), "license server is down"},
		"panic":          {func(context.Context, license.Query) (license.Verdict, error) { panic("secret") }, "panicked with a string"},
		"error as panic": {func(context.Context, license.Query) (license.Verdict, error) { panic(errors.New("secret")) }, "panicked with a *errors.errorString"},
		"bug": {func(context.Context, license.Query) (license.Verdict, error) {
			return allow([]string{}[len(t.Name())*0]), nil
		}, "index out of range"},
		"gone": {func(context.Context, license.Query) (license.Verdict, error) { exit(); return allow("cus_1"), nil }, "ended its goroutine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, calls := true, 0
			bubble(t, Config{Checker: license.CheckerFunc(func(ctx context.Context, q license.Query) (license.Verdict, error) {
				if calls++; good {
					return allow("cus_1"), nil
				}
				return test.checker(ctx, q)
			})}, func(w world) {
				w.allowed("k")
				good = false
				time.Sleep(time.Hour)
				w.allowed("k")
				w.settle()
				require.Equal(t, 2, calls)
				require.Equal(t, "cus_1", w.allowed("k").Subject)
				err := w.unknown("other")
				require.ErrorContains(t, err, test.says)
				require.NotContains(t, err.Error(), "secret")
				require.ErrorContains(t, w.unknown("other"), test.says)
				require.Equal(t, 4, calls)
			})
		})
	}
}

func TestASubjectInTheQueryIsEnough(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		w.server.set(allow(""), nil)
		for range 2 {
			v, err := w.Check(w.Context(), license.Query{Subject: "cus_7", Feature: "api"})
			require.NoError(t, err)
			require.Equal(t, license.Allowed, v.Status)
		}
		w.asked(1)
	})
}

func TestInstant(t *testing.T) {
	t.Parallel()
	at := instant{mono: time.Hour, wall: int64(time.Hour)}
	for name, test := range map[string]struct {
		mono, wall time.Duration // that passed
		want       time.Duration
	}{
		"both":               {time.Minute, time.Minute, time.Minute},
		"clock set back":     {time.Minute, -time.Hour, time.Minute},
		"clock set forward":  {time.Minute, time.Hour, time.Hour},
		"suspended":          {0, time.Hour, time.Hour},
		"neither has passed": {0, 0, 0},
	} {
		now := instant{at.mono + test.mono, at.wall + int64(test.wall)}
		require.Equal(t, test.want, now.since(at), name)
	}
	until := time.Unix(0, at.wall).Add(time.Minute)
	require.True(t, at.ended(until, instant{at.mono + time.Minute, 0}.since(at)), "setting the clock back prolongs nothing")
	require.False(t, at.ended(until, time.Minute-1))
	require.False(t, at.ended(time.Time{}, time.Hour))
}
