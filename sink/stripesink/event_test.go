package stripesink_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// wiretap keeps what a sink sends.
type wiretap struct {
	forms   []url.Values
	headers []http.Header
}

func newWiretap(t *testing.T, m stripesink.Meter) (*wiretap, *stripesink.Sink) {
	t.Helper()
	tap := &wiretap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		tap.forms, tap.headers = append(tap.forms, form), append(tap.headers, r.Header)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	return tap, stripesink.New(stripesink.Config{
		Key: testKey, BaseURL: server.URL, Meters: map[string]stripesink.Meter{feature: m}, HTTPClient: server.Client(),
	})
}

func TestEventOnTheWire(t *testing.T) {
	t.Parallel()
	tap, s := newWiretap(t, stripesink.Meter{EventName: "reports made", ValueKey: "n"})
	r := record(0, 42)
	r.Dimensions = map[string]string{"region": "eu & uk", "value": "free"}
	require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))

	require.Equal(t, url.Values{
		"event_name":                  {"reports made"},
		"identifier":                  {r.ID},
		"timestamp":                   {"1772366459"}, // 2026-03-01 12:00:59 UTC
		"payload[stripe_customer_id]": {customer},
		"payload[n]":                  {"42"},
		"payload[region]":             {"eu & uk"},
		"payload[value]":              {"free"},
	}, tap.forms[0])
	h := tap.headers[0]
	require.Equal(t, r.ID, h.Get("Idempotency-Key"))
	require.Equal(t, "Bearer "+testKey, h.Get("Authorization"))
	require.Equal(t, "2023-10-16", h.Get("Stripe-Version"))
	require.Empty(t, h.Get("X-Stripe-Client-Telemetry"))
}

// A later attempt repeats the event to the letter, under a key with no answer
// stored yet, even when the count of attempts did not survive a restart.
func TestAttemptsRepeatTheEvent(t *testing.T) {
	t.Parallel()
	tap, s := newWiretap(t, stripesink.Meter{EventName: event})
	r := record(0, 42)
	r.ID = strings.Repeat("z", 64)
	r.Dimensions = map[string]string{"a": "1", "b": "2", "c": "3"}
	keys := map[string]int{}
	for _, attempt := range []int{1, 2, 3, 2, 1000} {
		r.Attempt, r.Doubt = attempt, attempt > 1
		require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))
		keys[tap.headers[len(tap.headers)-1].Get("Idempotency-Key")]++
	}
	require.Len(t, tap.forms, 5)
	for _, form := range tap.forms {
		require.Equal(t, tap.forms[0], form)
	}
	require.Len(t, keys, 5)
	for key := range maps.Keys(keys) {
		require.LessOrEqual(t, len(key), 100)
		require.True(t, strings.HasPrefix(key, r.ID))
	}
	for _, h := range tap.headers {
		require.Empty(t, h.Get("X-Stripe-Client-Telemetry"))
	}
}

func TestTimestampIsInsideTheWindow(t *testing.T) {
	t.Parallel()
	tap, s := newWiretap(t, stripesink.Meter{EventName: event})
	for _, width := range []time.Duration{0, time.Second, time.Minute, time.Hour} {
		r := record(0, 1)
		r.End = r.Start.Add(width)
		require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))
	}
	var got []string
	for _, form := range tap.forms {
		got = append(got, form.Get("timestamp"))
	}
	require.Equal(t, []string{"1772366400", "1772366400", "1772366459", "1772369999"}, got)
}

func TestRecordsThatCannotBeBilled(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*sink.Record)
		says   string
	}{
		"max":              {func(r *sink.Record) { r.Kind = sink.Max }, "kind max"},
		"level below zero": {func(r *sink.Record) { r.Kind, r.Quantity = sink.Last, -1 }, "level -1"},
		"series of levels": {func(r *sink.Record) {
			r.Kind, r.Dimensions = sink.Last, map[string]string{"region": "eu"}
		}, "kind last has dimensions"},
		"kind of the future": {func(r *sink.Record) { r.Kind = 99 }, "kind unknown"},
		"nothing":            {func(r *sink.Record) { r.Quantity = 0 }, "quantity 0"},
		"less than nothing":  {func(r *sink.Record) { r.Quantity = -1 }, "quantity -1"},
		"nobody":             {func(r *sink.Record) { r.Subject = "" }, `subject ""`},
		"a user":             {func(r *sink.Record) { r.Subject = "user-7" }, `subject "user-7"`},
		"a subscription":     {func(r *sink.Record) { r.Subject = "si_1" }, `subject "si_1"`},
		"two customers":      {func(r *sink.Record) { r.Subject = "cus_1,cus_2" }, "no Stripe customer ID"},
		"a line":             {func(r *sink.Record) { r.Subject = "cus_1\n" }, "no Stripe customer ID"},
		"prefix alone":       {func(r *sink.Record) { r.Subject = "cus_" }, "no Stripe customer ID"},
		"no ID":              {func(r *sink.Record) { r.ID = "" }, "ID has 0 characters"},
		"long ID":            {func(r *sink.Record) { r.ID = strings.Repeat("a", 101) }, "ID has 101 characters"},
		"dimension as value": {func(r *sink.Record) { r.Dimensions = map[string]string{"value": "9"} }, `dimension "value"`},
		"dimension as customer": {func(r *sink.Record) {
			r.Dimensions = map[string]string{"stripe_customer_id": "cus_2"}
		}, `dimension "stripe_customer_id"`},
		"dimension with brackets": {func(r *sink.Record) { r.Dimensions = map[string]string{"x][value": "9"} }, "has no brackets"},
		"dimension without name":  {func(r *sink.Record) { r.Dimensions = map[string]string{"": "9"} }, "is not empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := record(0, 5)
			test.change(&r)
			err := b.sink.Deliver(t.Context(), []sink.Record{r})
			require.ErrorIs(t, err, sink.ErrRejected)
			require.ErrorContains(t, err, test.says)
			require.Zero(t, b.Requests())
		})
	}
}
