package stripesink_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestSubjectsAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, byLicense)
		b.license(b.subscribe("cus_2", "price_sum"), "key-1")
		reads := func() int { return b.Requests() - b.RequestsTo(postUsage) }
		for n := range 230 { // within 4 hours
			for _, subject := range []string{customer, "key-1"} {
				r := usage(-5, 1)
				r.ID, r.Subject = fmt.Sprint(n, subject), subject
				r.Start = time.Now().Add(-time.Minute)
				r.End = time.Now()
				outcome, err := b.deliver(t, r)
				require.Equal(t, sink.Delivered, outcome, "%v", err)
			}
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2, reads())
		require.EqualValues(t, 230, b.billed("cus_2"))
		time.Sleep(time.Hour)
		outcome, _ := b.deliver(t, usage(-5, 1))
		require.Equal(t, sink.Delivered, outcome)
		require.Equal(t, 3, reads())
	})
}

func TestMissesAreLookedUpAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, byLicense)
		b.SearchLag = 5 * time.Minute
		sub := b.subscribe("cus_2", "price_sum")
		b.license(sub, "key-1")
		r := usage(-5, 4)
		r.Subject = "key-1"
		outcomes := b.settle(t.Context(), t, []sink.Record{r})
		require.Equal(t, sink.Delivered, outcomes[0])
		require.EqualValues(t, 4, b.billed("cus_2"))
		require.LessOrEqual(t, b.Requests(), 6, "at most one a minute")
	})
}

// Whether a search shows subscriptions as they are, or as its index has them, is not known.
func TestIndexThatIsBehind(t *testing.T) {
	t.Parallel()
	requests := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Unix()
		const sub = `{"object":"subscription","id":"sub_1","status":"active","customer":"cus_1","metadata":{"skm_key_id":%q},"current_period_start":%d,
			"current_period_end":%d,"items":{"object":"list","data":[{"id":"si_1","price":{"id":"price_sum"}}]}}`
		switch requests[r.URL.Path]++; r.URL.Path {
		case "/v1/subscriptions/search":
			fmt.Fprintf(w, `{"object":"search_result","data":[`+sub+`]}`, "key-1", now-86400, now-60)
		case "/v1/subscriptions/sub_1":
			fmt.Fprintf(w, sub, "key-2", now-60, now+86400)
		default:
			fmt.Fprint(w, `{"object":"usage_record"}`)
		}
	}))
	defer server.Close()
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(), SubjectMetadata: field,
		Prices: map[string][]string{feature: {"price_sum"}},
	})
	r := usage(-5, 1)
	r.Subject = "key-1"
	require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{r}), stripesink.ErrNotFound)
	require.Equal(t, map[string]int{"/v1/subscriptions/search": 2, "/v1/subscriptions/sub_1": 1}, requests)
}

func TestOneLookupAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
			c.Prices["other"] = []string{"price_max"}
		})
		b.subscribe("cus_2", "price_sum", "price_max")
		b.Script(stripetest.Fault{Delay: 5 * time.Second, On: "GET"})
		var wg sync.WaitGroup
		for i, feature := range []string{feature, "other"} {
			wg.Go(func() {
				r := usage(-5, 1)
				r.ID, r.Subject, r.Feature, r.Kind = fmt.Sprint(i), "cus_2", feature, sink.Kind(i)
				outcome, err := b.deliver(t, r)
				require.Equal(t, sink.Delivered, outcome, "%v", err)
			})
		}
		wg.Wait()
		require.Equal(t, 1, b.Requests()-b.RequestsTo(postUsage))
	})
}

// Reads are paced, below what Stripe allows beside the deliveries.
func TestLookupsArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		began := time.Now()
		for n := range 44 {
			r := usage(-5, 1)
			r.ID, r.Subject = fmt.Sprint(n), fmt.Sprintf("cus_none%d", n)
			_, err := b.deliver(t, r)
			require.ErrorIs(t, err, stripesink.ErrNotFound)
		}
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestLookupsThatFail(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		says   string
		delay  time.Duration
	}{
		"wrong key":     {401, stripeError("invalid_request_error", "", "Invalid API Key provided"), "Invalid API Key", time.Minute},
		"no permission": {403, stripeError("invalid_request_error", "", "not allowed"), "needs read access to subscriptions", time.Minute},
		"throttled":     {429, stripeError("invalid_request_error", "rate_limit", "Too many"), "Too many", 0},
		"failed":        {500, stripeError("api_error", "", "unknown"), "status 500", 0},
		"page":          {200, "<html>", "status 200", 0},
		"proxy":         {200, `{"ok":true}`, "the answer is no list", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer server.Close()
			s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
				Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(), Prices: map[string][]string{feature: {"price_sum"}},
			})
			err := s.Deliver(t.Context(), []sink.Record{usage(-5, 1), usage(-4, 1)})
			require.Equal(t, []sink.Outcome{sink.Pending, sink.Pending}, judge(err, 2))
			require.ErrorContains(t, err, test.says)
			require.Equal(t, test.delay, sink.RetryDelay(err))
			require.Equal(t, 1, requests, "the others would fare no better")
		})
	}
}

// Stripe shows the first items of a subscription only, and the first subscriptions.
func TestLongLists(t *testing.T) {
	t.Parallel()
	subscription := func(more bool) string {
		return fmt.Sprintf(`{"object":"subscription","id":"sub_1","status":"active","customer":"cus_1","current_period_start":1,
			"current_period_end":99999999999,"items":{"object":"list","has_more":%t,"data":[{"id":"si_0","price":{"id":"price_x"}},null]}}`, more)
	}
	answers := map[string]string{
		"/v1/subscriptions/sub_1":        subscription(true),
		"/v1/subscription_items?":        `{"object":"list","has_more":true,"data":[{"id":"si_0","price":{"id":"price_x"}}]}`,
		"/v1/subscription_items?si_0":    `{"object":"list","has_more":false,"data":[{"id":"si_1","price":{"id":"price_sum"}}]}`,
		"/v1/subscriptions?":             fmt.Sprintf(`{"object":"list","has_more":true,"data":[%s]}`, subscription(false)),
		"/v1/subscriptions/search?":      fmt.Sprintf(`{"object":"search_result","has_more":true,"next_page":"x","data":[%s]}`, subscription(false)),
		"/v1/subscription_items/si_1/us": `{"object":"usage_record"}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if !strings.HasSuffix(path, "_1") {
			path += "?" + r.URL.Query().Get("starting_after")
		}
		path = strings.TrimSuffix(path, "age_records?")
		answer, ok := answers[path]
		require.True(t, ok, path)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(), SubjectMetadata: field,
		Prices: map[string][]string{feature: {"price_sum"}},
	})
	for subject, want := range map[string]error{"sub_1": nil, "cus_1": stripesink.ErrAmbiguous, "key": stripesink.ErrAmbiguous} {
		r := usage(-5, 1)
		r.Subject = subject
		require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{r}), want, subject)
	}
}
