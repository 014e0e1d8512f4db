package meter

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func limitedTo(n int64) FeatureOption {
	return Limit(func(context.Context, string) (license.Quota, error) { return license.Quota{Limit: n}, nil })
}

// Events are used of a quota, once each, and are refused by none.
func TestEventsCountTowardTheQuota(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", limitedTo(5))
	event := func(id string, n int64) {
		require.NoError(t, f.AddEvent(t.Context(), Event{ID: id, Subject: "s", Quantity: n}))
	}
	event("a", 1) // before anybody asks for the quota
	_, call, err := f.Begin(as("s"))
	require.NoError(t, err)
	require.NoError(t, call.Commit())
	event("a", 1)
	event("b", 2)
	event("b", 2)
	total := f.Total("s")
	require.EqualValues(t, 4, total.Quantity)
	require.EqualValues(t, 1, total.Left())
	_, call, err = f.Begin(as("s"))
	require.NoError(t, err)
	require.NoError(t, call.Commit())
	_, _, err = f.Begin(as("s"))
	require.Equal(t, license.OverQuota, asRefused(t, err).Reason)
	event("c", 3)
	require.EqualValues(t, 8, f.Total("s").Quantity)
	require.EqualValues(t, 8, m.billed(t, "f", "s"))
}

// A request that is repeated uses nothing of the quota, and frees what it held.
func TestRepeatedRequestsAndTheQuota(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", limitedTo(10), Hold(4), IdempotencyKey())
	h := Middleware(f, Identify(bySubject))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		require.NoError(t, SetQuantity(r.Context(), 3))
	}))
	send := func(key string) int {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-Subject", "s")
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		total := f.Total("s")
		require.Zero(t, total.Held)
		return w.Code
	}
	for range 5 {
		require.Equal(t, 200, send("a"))
		require.EqualValues(t, 3, f.Total("s").Quantity)
	}
	require.Equal(t, 400, send("\x01"))
	require.Equal(t, 200, send("b"))
	require.EqualValues(t, 6, f.Total("s").Quantity)
	require.EqualValues(t, 6, m.billed(t, "f", "s"))
}

// A request that was billed is let through again when the quota is used up, for it uses
// nothing: as often as it comes, but not under another key, or by another caller.
func TestBilledRequestIsHeldToNoQuota(t *testing.T) {
	t.Parallel()
	dir := inDir(t.TempDir())
	m := open(t, dir)
	var h http.Handler
	var f *Feature
	wire := func() {
		f = m.Feature("f", limitedTo(10), Quantity(4), IdempotencyKey())
		h = Middleware(f, Identify(bySubject))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(500)
			}
		}))
	}
	send := func(method, subject, key string) (int, string) {
		r := httptest.NewRequest(method, "/", nil)
		r.Header.Set("X-Subject", subject)
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Header().Get("RateLimit")
	}
	is := func(code int, method, subject, key string) {
		t.Helper()
		got, _ := send(method, subject, key)
		require.Equal(t, code, got)
	}
	wire()
	is(200, "POST", "s", "a")
	is(500, "PUT", "s", "failed")
	is(200, "POST", "s", "b")
	_, call, err := f.Begin(as("s"), Hold(2))
	require.NoError(t, err)
	for range 2 {
		for range 3 {
			is(200, "POST", "s", "a")
			is(402, "POST", "s", "failed")
			is(402, "POST", "s", "c")
		}
		is(200, "POST", "other", "b")
		require.EqualValues(t, 8, f.Total("s").Quantity)
		call.Cancel()
		_, limit := send("POST", "s", "b")
		require.Contains(t, limit, `"f-quota";r=2;`)
		require.NoError(t, m.Shutdown(t.Context()))
		m = open(t, dir)
		wire()
	}
	require.Zero(t, f.Total("s").Held)
}

// One whose first attempt still runs is not billed, so it is held to the quota.
func TestConcurrentRepeatIsHeldToTheQuota(t *testing.T) {
	t.Parallel()
	m := open(t)
	f := m.Feature("f", limitedTo(10), Quantity(6), IdempotencyKey())
	var h http.Handler
	send := func() int {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-Subject", "s")
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	calls := 0
	h = Middleware(f, Identify(bySubject))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if calls++; calls == 1 {
			require.Equal(t, 402, send())
		}
	}))
	require.Equal(t, 200, send())
	require.Equal(t, 200, send())
	require.Equal(t, Total{Quantity: 6, Limit: 10}, bare(f.Total("s")))
}

// What was used in a period counts in it also if it was reported before the first call,
// whether its window has ended by then or not, and the process.
func TestEventsBeforeTheFirstCallOfAPeriod(t *testing.T) {
	t.Parallel()
	for _, flushed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(19 * 24 * time.Hour)
			dir := slow(t)
			start := time.Now().AddDate(0, 0, -10)
			quota := limited(license.Quota{Limit: 50, Start: start, End: start.AddDate(0, 1, 0)})
			m := open(t, dir)
			f := m.Feature("f", quota)
			for i, at := range []time.Time{start.AddDate(0, 0, 5), start.Add(-time.Hour)} {
				require.NoError(t, f.AddEvent(t.Context(), Event{ID: string(rune('a' + i)), Subject: "s", Quantity: 40, Time: at}))
			}
			if flushed {
				require.NoError(t, m.Flush(t.Context()))
				require.NoError(t, m.Shutdown(t.Context()))
				m = open(t, dir)
				f = m.Feature("f", quota)
			}
			require.True(t, try(t, f, "s", 1))
			require.Equal(t, Total{Quantity: 41, Limit: 50}, bare(f.Total("s")))
			require.False(t, try(t, f, "s", 10, Quantity(10)))
			require.NoError(t, m.Shutdown(t.Context()))
		})
	}
}
