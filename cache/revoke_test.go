package cache

import (
	"context"
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
