package meter

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"github.com/inprocess/meter/sink"
)

func TestAddEvent(t *testing.T) {
	t.Parallel()
	r := &recorder{callbacks: map[*registered]bool{}}
	b := open(t, func(c *Config) { c.MeterProvider = r })
	f, ctx := b.Feature("orders"), t.Context()
	for range 3 {
		require.NoError(t, f.AddEvent(ctx, Event{ID: "1", Subject: "s", Quantity: 2}))
		require.NoError(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 5}), "without an ID each counts")
	}
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "1", Subject: "s", Quantity: 3}), ErrConflict)
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "1", Subject: "other", Quantity: 2}), ErrConflict)
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "\n", Subject: "s", Quantity: 3}), ErrName)
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "2", Quantity: 3}), ErrName)
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "2", Subject: "s", Quantity: -3}), ErrQuantity)
	require.ErrorIs(t, b.Feature("seats", Kind(sink.Max)).AddEvent(ctx, Event{ID: "2", Subject: "s", Quantity: 3}), ErrKind)
	require.EqualValues(t, 17, b.billed(t, "orders", "s"))
	require.Equal(t, Books{{Feature: "orders", Route: "memory", Accepted: 17, Delivered: 17, Duplicates: 2}}, b.Books())
	require.Equal(t, ""+
		"  feature   route  accepted  pending  delivered  in doubt  rejected  voided  superseded  damaged  duplicates\n"+
		"   orders  memory        17        0         17         0         0       0           0        0           2\n", b.Books().String())
	require.EqualValues(t, 2, r.collect(t)["meter.duplicates"][attribute.NewSet(attribute.String("meter.feature", "orders"))])
	require.NoError(t, b.Shutdown(ctx))
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "2", Subject: "s", Quantity: 3}), ErrClosed)
}

func TestEventDimensions(t *testing.T) {
	t.Parallel()
	b := open(t)
	f := b.Feature("orders")
	ctx := WithDimension(WithDimension(t.Context(), "region", "eu"), "tier", "pro")
	e := Event{ID: "1", Subject: "s", Quantity: 1, Dimensions: map[string]string{"region": "us"}}
	require.NoError(t, f.AddEvent(ctx, e))
	require.Equal(t, map[string]string{"region": "us"}, e.Dimensions, "the caller's own")
	require.NoError(t, f.AddEvent(t.Context(), e), "again, without the context's")
	require.NoError(t, f.AddEvent(ctx, Event{ID: "2", Subject: "s", Quantity: 1}))
	require.NoError(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 1}))
	require.ErrorIs(t, f.AddEvent(ctx, Event{ID: "3", Subject: "s", Quantity: 1, Dimensions: map[string]string{"\n": "x"}}), ErrName)
	require.ErrorIs(t, f.AddEvent(WithDimension(ctx, "\n", "x"), Event{ID: "3", Subject: "s", Quantity: 1}), ErrName)
	require.NoError(t, b.Flush(t.Context()))
	got := map[string]int64{}
	for _, r := range b.sink.Records() {
		require.Len(t, r.Dimensions, 2)
		require.Equal(t, "pro", r.Dimensions["tier"])
		got[r.Dimensions["region"]] += r.Quantity
	}
	require.Equal(t, map[string]int64{"us": 1, "eu": 2}, got)
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var b bench
	var handler http.HandlerFunc
	var f *Feature
	var h http.Handler
	reopen := func() {
		if b.Meter != nil {
			require.NoError(t, b.Shutdown(context.Background()))
		}
		b = open(t, func(c *Config) { c.Dir, c.Identify = dir, bySubject })
		f = b.Feature("report")
		h = Middleware(f, IdempotencyKey())(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r) }))
	}
	reopen()
	send := func(subject string, keys ...string) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
		r.Header.Set("X-Subject", subject)
		for _, key := range keys {
			r.Header.Add("idempotency-key", key)
		}
		h.ServeHTTP(w, r)
		return w.Code
	}
	status := 500
	handler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	require.Equal(t, 500, send("s", "k"), "fails, and counts nothing")
	status = 201
	require.Equal(t, 201, send("s", "k"))
	require.Equal(t, 201, send("s", "k"))
	require.EqualValues(t, 1, f.Total("s").Quantity)
	require.Equal(t, 201, send("other", "k"), "another caller's")
	require.EqualValues(t, 1, f.Total("other").Quantity)
	require.Equal(t, 201, send("s", "k2"))
	require.Equal(t, 201, send("s"))
	require.Equal(t, 201, send("s"))
	require.EqualValues(t, 4, f.Total("s").Quantity)
	require.NoError(t, f.AddEvent(t.Context(), Event{ID: "k", Subject: "s", Quantity: 10}), "an event's ID is something else")
	require.EqualValues(t, 14, f.Total("s").Quantity)
	reopen()
	require.Equal(t, 201, send("s", "k"))
	require.EqualValues(t, 14, f.Total("s").Quantity, "after a restart")

	handler = func(_ http.ResponseWriter, r *http.Request) { require.NoError(t, SetQuantity(r.Context(), 7)) }
	require.Equal(t, 200, send("s", "k"), "the answer stands")
	require.EqualValues(t, 14, f.Total("s").Quantity, "as does the first count")
	require.Contains(t, strings.Join(b.logs.all(), "\n"), "Idempotency-Key was used before for another quantity")

	handler = func(http.ResponseWriter, *http.Request) { t.Error("the handler was reached") }
	for _, bad := range [][]string{{""}, {"a", "a"}, {strings.Repeat("k", 256)}, {"a\x7f"}, {"\xff"}} {
		require.Equal(t, http.StatusBadRequest, send("s", bad...), "%q", bad)
	}
	require.Equal(t, http.StatusUnauthorized, send("", ""), "who calls comes first")
	require.EqualValues(t, 14, f.Total("s").Quantity)
	handler = func(http.ResponseWriter, *http.Request) {}
	require.Equal(t, 200, send("s", strings.Repeat("k", 255)))
	require.EqualValues(t, 15, f.Total("s").Quantity)
}

// A key is the client's, and nobody else's business.
func TestIdempotencyKeyIsAnsweredWithoutItself(t *testing.T) {
	t.Parallel()
	b := open(t)
	h := Middleware(b.Feature("report"), Identify(bySubject), IdempotencyKey())(http.NotFoundHandler())
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-Subject", "s")
	r.Header.Set("Idempotency-Key", strings.Repeat("canary", 50))
	h.ServeHTTP(w, r)
	require.Equal(t, `{"type":"about:blank","title":"Bad Request","status":400,"detail":"The Idempotency-Key field has 300 bytes, at most 255."}`+"\n", w.Body.String())
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
}

// TestEventTime bills usage in the window in which it was, whenever it is reported.
func TestEventTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20 * 24 * time.Hour)
		b := open(t)
		f, ctx := b.Feature("orders"), t.Context()
		now := time.Now()
		used := now.AddDate(0, 0, -9).Add(17 * time.Second)
		row := Event{ID: "import-7/row-12", Subject: "s", Quantity: 40, Time: used}
		for range 2 {
			require.NoError(t, f.AddEvent(ctx, row))
		}
		require.NoError(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 2, Time: used}))
		require.NoError(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 1, Time: now.Add(time.Minute)}))
		require.NoError(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 100, Time: now.AddDate(0, -1, 0)}))
		require.ErrorIs(t, f.AddEvent(ctx, Event{Subject: "s", Quantity: 1, Time: now.Add(time.Hour)}), ErrTime)
		require.EqualValues(t, 43, f.Total("s").Quantity, "of the running month")
		require.NoError(t, b.Flush(ctx))
		require.EqualValues(t, 43, f.Total("s").Quantity)
		got := map[time.Time]int64{}
		for _, r := range b.sink.Records() {
			got[r.Start] += r.Quantity
			require.Equal(t, r.Quantity != 1, r.Backdated)
			require.False(t, r.Start.After(now))
		}
		require.Equal(t, map[time.Time]int64{
			now.UTC():                        1,
			used.Truncate(time.Minute).UTC(): 42,
			now.AddDate(0, -1, 0).Truncate(time.Minute).UTC(): 100,
		}, got)
		require.Equal(t, Books{{Feature: "orders", Route: "memory", Accepted: 143, Delivered: 143, Duplicates: 1}}, b.Books())
		require.NoError(t, b.Shutdown(ctx))
	})
}
