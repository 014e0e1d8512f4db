package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

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

// The feature whose check brings the denial need not be one that was allowed before.
func TestRevocationIsFoundOutByAnyFeature(t *testing.T) {
	t.Parallel()
	bubble(t, Config{}, func(w world) {
		check := func(subject, feature string) license.Status {
			v, _ := w.Check(w.Context(), license.Query{Key: license.NewKey("k"), Subject: subject, Feature: feature})
			return v.Status
		}
		for _, subject := range []string{"", "cus_1"} {
			require.Equal(w, license.Allowed, check(subject, "a"))
		}
		time.Sleep(6 * time.Minute)
		w.server.set(deny(license.Blocked), nil)
		require.Equal(w, license.Denied, check("", "b"))
		require.EqualValues(w, 1, w.Cache.allowed.Len(), "the other subject's")
		w.server.set(license.Verdict{}, errDown)
		for range 23 {
			require.Equal(w, license.Denied, check("", "a"))
			require.Equal(w, license.Allowed, check("cus_1", "a"))
			time.Sleep(time.Hour)
		}
		time.Sleep(time.Hour)
		require.Equal(w, license.Unknown, check("", "a"))
	})
}

func TestRevocationByAnotherFeatureOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		w.answer("k", license.Allowed)
		time.Sleep(time.Hour)
		w.settle()
		h.server.set(deny(license.Blocked), nil)
		v, err := w.Check(w.Context(), license.Query{Key: license.NewKey("k"), Feature: "other"})
		require.NoError(h, err)
		require.Equal(h, license.Denied, v.Status)
		time.Sleep(soon)
		w.settle()
		h.kill(w)
		h.server.set(license.Verdict{}, errDown)
		w = h.start()
		w.answer("k", license.Denied)
		h.stop(w)
	})
}

// bySlow is a Checker that answers the features "slow…" only when block is closed,
// as then was when they were asked.
type bySlow struct {
	server
	block chan struct{}
}

func (s *bySlow) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	v, err := s.server.Check(ctx, q)
	if strings.HasPrefix(q.Feature, "slow") {
		<-s.block
	}
	return v, err
}

func TestWhatWasAskedBeforeARevocationIsNotKept(t *testing.T) {
	t.Parallel()
	s := &bySlow{server: server{verdict: allow("cus_1")}}
	bubble(t, Config{Checker: s}, func(w world) {
		s.block = make(chan struct{}) // of the bubble
		slow := license.Query{Key: license.NewKey("k"), Feature: "slow"}
		first, second := make(chan license.Status, 1), make(chan license.Status, 1)
		check := func(to chan license.Status) {
			v, _ := w.Check(context.Background(), slow)
			to <- v.Status
		}
		go check(first)
		w.settle()
		s.set(deny(license.Blocked), nil)
		w.answer("k", license.Denied) // never allowed
		go check(second)              // must not be answered what the first is
		w.settle()
		close(s.block)
		require.Equal(w, license.Allowed, <-first, "who asked before is answered")
		w.hasKey("cus_1", "k") // and counted
		require.Equal(w, license.Denied, <-second)
		w.settle()
		require.Zero(w, w.Cache.allowed.Len())
		require.Empty(w, w.Cache.flights)
		s.set(license.Verdict{}, errDown)
		v, err := w.Check(w.Context(), slow)
		require.NoError(w, err)
		require.Equal(w, license.Denied, v.Status)
	})
}

// A blocked license on many machines, which all ask at the same time, is asked about
// once for each, and not again for those whose answers came after the first denial.
func TestDenialsOfOneKeyDoNotForgetEachOther(t *testing.T) {
	t.Parallel()
	bubble(t, Config{Rate: 1e6}, func(w world) {
		const machines = 100
		w.server.set(deny(license.Blocked), nil)
		w.server.slow(time.Second)
		for range 2 {
			for i := range machines {
				go w.Check(context.Background(), license.Query{Key: license.NewKey("k"), Machine: fmt.Sprint(i)})
			}
			time.Sleep(2 * time.Second)
		}
		w.asked(machines)
	})
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
