package mocktest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// teller puts a subscription that fits in place of stripe-mock's canned ones, once the
// mock has taken the request.
type teller struct{ http.RoundTripper }

func (l teller) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	now := time.Now()
	body := fmt.Sprintf(`{"object":"subscription","id":"sub_1","status":"active","customer":"cus_1","metadata":{"skm_key_id":"key-1"},
		"current_period_start":%d,"current_period_end":%d,
		"items":{"object":"list","data":[{"id":"si_1","price":{"id":"price_1"}}]}}`, now.AddDate(0, 0, -1).Unix(), now.AddDate(0, 0, 1).Unix())
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/search"):
		body = `{"object":"search_result","has_more":false,"data":[` + body + `]}`
	case strings.HasSuffix(path, "/subscriptions"):
		body = `{"object":"list","has_more":false,"data":[` + body + `]}`
	case strings.HasSuffix(path, "/si_1"):
		body = `{"object":"subscription_item","id":"si_1","subscription":"sub_1"}`
	case !strings.HasSuffix(path, "/sub_1"):
		return resp, nil
	}
	_ = resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return resp, nil
}

func TestStripeMockTakesUsageRecords(t *testing.T) {
	t.Parallel()
	mock := startMock(t)
	for _, increment := range []bool{false, true} {
		for subject, statuses := range map[string][]int{
			"cus_1": {200, 200}, "sub_1": {200, 200}, "si_1": {200, 200, 200}, "key-1": {200, 200},
		} {
			t.Run(fmt.Sprint(subject, increment), func(t *testing.T) {
				t.Parallel()
				tp := &tamper{mock, func(url.Values) {}, nil}
				u := usageSink(teller{tp}, increment)
				r := record("01-a")
				r.Subject, r.Dimensions = subject, nil
				require.NoError(t, u.Deliver(t.Context(), []sink.Record{r}))
				require.Equal(t, statuses, tp.statuses)
			})
		}
	}
	for says, change := range map[string]func(url.Values){
		"'quantity' is required":        func(f url.Values) { f.Del("quantity") },
		"'timestamp' validation failed": func(f url.Values) { f.Set("timestamp", "yesterday") },
		"'action' validation failed":    func(f url.Values) { f.Set("action", "overwrite") },
	} {
		t.Run("refuses, "+says, func(t *testing.T) {
			t.Parallel()
			r := record("01-a")
			r.Subject, r.Dimensions = "sub_1", nil
			err := usageSink(teller{&tamper{mock, change, nil}}, false).Deliver(t.Context(), []sink.Record{r})
			require.ErrorIs(t, err, sink.ErrRejected)
			require.ErrorContains(t, err, says)
		})
	}
	t.Run("price and summaries", func(t *testing.T) {
		t.Parallel()
		tp := &tamper{mock, nil, nil}
		u := usageSink(teller{tp}, false)
		_ = u.Prepare(t.Context(), []sink.Feature{{Name: "tax-report"}}) // of a canned price
		_, err := u.Usage(t.Context(), "tax-report", "sub_1", time.Now().Add(-time.Hour), time.Now())
		require.NoError(t, err)
		require.Equal(t, []int{200, 200, 200}, tp.statuses)
	})
}

func usageSink(transport http.RoundTripper, increment bool) *stripesink.UsageRecords {
	return stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: "sk_test_123", Increment: increment, SubjectMetadata: "skm_key_id",
		Prices:  map[string][]string{"tax-report": {"price_1"}},
		BaseURL: "http://localhost", HTTPClient: &http.Client{Transport: transport},
	})
}
