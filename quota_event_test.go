package meter

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

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
