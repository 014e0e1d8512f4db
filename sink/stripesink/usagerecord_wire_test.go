package stripesink_test

import (
	"fmt"
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

const subscribed = `{"object":"subscription","id":"sub_1","status":"active","customer":"cus_1","current_period_start":%d,
	"current_period_end":%d,"items":{"object":"list","data":[{"id":"si_1","price":{"id":"price_sum"}}]}}`

// answering is a sink whose usage records all get one answer; what it sends is kept.
func answering(t *testing.T, change func(*stripesink.UsageRecordsConfig), answer http.HandlerFunc) (*stripesink.UsageRecords, *wiretap) {
	t.Helper()
	tap := &wiretap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			now := time.Now()
			fmt.Fprintf(w, subscribed, now.Add(-day).Unix(), now.Add(day).Unix())
			return
		}
		require.NoError(t, r.ParseForm())
		tap.forms, tap.headers = append(tap.forms, r.PostForm), append(tap.headers, r.Header)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	cfg := stripesink.UsageRecordsConfig{
		Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(), Prices: map[string][]string{feature: {"price_sum"}},
	}
	if change != nil {
		change(&cfg)
	}
	return stripesink.NewUsageRecords(cfg), tap
}

// hourAgo is a record of the subscription that answering knows.
func hourAgo(quantity int64) sink.Record {
	r := usage(0, quantity)
	r.Subject, r.Start = "sub_1", time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	r.End = r.Start.Add(time.Minute)
	return r
}

func TestUsageRecordOnTheWire(t *testing.T) {
	t.Parallel()
	fail := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	for way, change := range ways {
		s, tap := answering(t, change, fail)
		r := hourAgo(42)
		keys := map[string]bool{}
		for _, attempt := range []int{1, 2, 3, 1000} {
			r.Attempt, r.Doubt = attempt, attempt > 1
			require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))
			h := tap.headers[len(tap.headers)-1]
			keys[h.Get("Idempotency-Key")] = true
			require.True(t, strings.HasPrefix(h.Get("Idempotency-Key"), r.ID))
			require.Equal(t, "Bearer "+testKey, h.Get("Authorization"))
			require.Equal(t, "2023-10-16", h.Get("Stripe-Version"))
			require.Empty(t, h.Get("X-Stripe-Client-Telemetry"))
		}
		want := url.Values{"action": {"set"}, "quantity": {"42"}, "timestamp": {fmt.Sprint(r.Start.Unix() + 2)}}
		fresh := 4 // a key with no answer stored yet: the second itself is what protects
		if way == "increment" {
			want, fresh = url.Values{"action": {"increment"}, "quantity": {"42"}, "timestamp": {fmt.Sprint(r.End.Unix() - 1)}}, 1
			require.True(t, keys[r.ID])
		}
		require.Len(t, tap.forms, 4)
		for _, form := range tap.forms {
			require.Equal(t, want, form)
		}
		require.Len(t, keys, fresh, way)
	}
}

func TestOutcomesOfUsageRecords(t *testing.T) {
	t.Parallel()
	const invalid = "invalid_request_error"
	tests := map[string]struct {
		status int
		header http.Header
		body   string
		want   sink.Outcome
		says   string
		delay  time.Duration
	}{
		"recorded":          {status: 200, body: `{"object":"usage_record"}`, want: sink.Delivered},
		"no body":           {status: 200, want: sink.InDoubt, says: "no usage_record"},
		"another object":    {status: 200, body: `{"object":"billing.meter_event"}`, want: sink.InDoubt, says: "no usage_record"},
		"garbled":           {status: 200, body: `{"object":`, want: sink.InDoubt},
		"page":              {status: 200, body: `<html>`, want: sink.InDoubt},
		"redirect":          {status: 302, header: http.Header{"Location": {"/x"}}, want: sink.InDoubt},
		"canceled":          {status: 400, body: stripeError(invalid, "", "Cannot create the usage record because the subscription has been canceled."), want: sink.Rejected, says: "has been canceled"},
		"too much":          {status: 400, body: stripeError(invalid, "parameter_invalid_integer", "quantity is too large"), want: sink.Rejected},
		"names an ID":       {status: 400, body: stripeError(invalid, "", "already exists with identifier 01-record-0."), want: sink.Rejected},
		"key of another":    {status: 400, body: stripeError("idempotency_error", "", "Keys for idempotent requests can only be used…"), want: sink.InDoubt},
		"wrong key":         {status: 401, body: stripeError(invalid, "", "Invalid API Key"), want: sink.Pending, delay: time.Minute},
		"no permission":     {status: 403, body: stripeError(invalid, "", "not allowed"), want: sink.Pending, delay: time.Minute},
		"item gone":         {status: 404, body: stripeError(invalid, "resource_missing", "No such subscription_item: 'si_1'"), want: sink.Pending, says: "nowhere to bill it"},
		"item gone, by 400": {status: 400, body: stripeError(invalid, "resource_missing", "No such subscription_item: 'si_1'"), want: sink.Pending, says: "nowhere to bill it"},
		"wrong URL":         {status: 404, body: stripeError(invalid, "", "Unrecognized request URL"), want: sink.Pending, delay: time.Minute},
		"locked":            {status: 409, body: stripeError(invalid, "lock_timeout", "This object cannot be accessed right now"), want: sink.Pending},
		"locked, by 429":    {status: 429, body: stripeError(invalid, "lock_timeout", "This object cannot be accessed right now"), want: sink.Pending},
		"key in use":        {status: 409, body: stripeError("idempotency_error", "idempotency_key_in_use", "in progress"), want: sink.InDoubt},
		"throttled":         {status: 429, header: http.Header{"Retry-After": {"30"}}, body: stripeError(invalid, "rate_limit", "Too many"), want: sink.Pending, delay: 30 * time.Second},
		"failed":            {status: 500, body: stripeError("api_error", "", "unknown"), want: sink.InDoubt},
		"bad gateway":       {status: 502, body: "<html>", want: sink.InDoubt},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, tap := answering(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				for name, values := range test.header {
					w.Header()[name] = values
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			err := s.Deliver(t.Context(), []sink.Record{hourAgo(3)})
			require.Equal(t, test.want, judge(err, 1)[0], "%v", err)
			require.Equal(t, test.delay, sink.RetryDelay(err))
			require.Len(t, tap.forms, 1)
			if test.want != sink.Delivered {
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, "01-record-0")
			}
		})
	}
}

func TestUsageThatCannotBeBilled(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*sink.Record)
		says   string
	}{
		"kind of the future": {func(r *sink.Record) { r.Kind = 99 }, "kind unknown"},
		"nothing":            {func(r *sink.Record) { r.Quantity = 0 }, "quantity 0"},
		"less than nothing":  {func(r *sink.Record) { r.Quantity = -1 }, "quantity -1"},
		"negative level":     {func(r *sink.Record) { r.Kind, r.Quantity = sink.Max, -1 }, "quantity -1"},
		"dimensions":         {func(r *sink.Record) { r.Dimensions = map[string]string{"a": "b"} }, "has dimensions"},
		"no ID":              {func(r *sink.Record) { r.ID = "" }, "ID has 0 characters"},
		"long ID":            {func(r *sink.Record) { r.ID = strings.Repeat("a", 101) }, "ID has 101 characters"},
		"a user":             {func(r *sink.Record) { r.Subject = "user-7" }, `subject "user-7" is no ID of Stripe's`},
	}
	for name, test := range tests {
		b := newRegister(t, nil)
		r := usage(-5, 5)
		test.change(&r)
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Rejected, outcome, name)
		require.ErrorContains(t, err, test.says)
		require.Zero(t, b.Requests())
	}
	b := newRegister(t, nil)
	unknown := usage(-5, 5)
	unknown.Feature = "export"
	outcome, err := b.deliver(t, unknown)
	require.Equal(t, sink.Pending, outcome)
	require.ErrorContains(t, err, `no Stripe price for feature "export"`)
}

// Dimensions and other subjects of one item add up.
func TestIncrementsAddUp(t *testing.T) {
	t.Parallel()
	b := newRegister(t, increment)
	one, two := usage(-5, 1), usage(-5, 10)
	one.Dimensions, two.Dimensions, two.ID = map[string]string{"region": "eu"}, map[string]string{"region": "us"}, "02"
	require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{one, two}))
	require.EqualValues(t, 11, b.billed(customer))
}
