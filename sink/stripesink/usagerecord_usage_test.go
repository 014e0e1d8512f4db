package stripesink_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

func TestUsageOfPeriods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		began := time.Now()
		require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{usage(-5, 3), usage(-3, 4)}))
		time.Sleep(21 * day)
		require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{usage(-5, 50)}))
		now := time.Now()
		for _, test := range []struct {
			start, end time.Time
			want       int64
		}{
			{began, began.Add(time.Hour), 7},
			{now, now.Add(time.Second), 50},
			{began, now, 57},
			{began.Add(-90 * day), began.Add(-80 * day), 0},
			{now.Add(90 * day), now.Add(99 * day), 0},
		} {
			got, err := b.sink.Usage(t.Context(), feature, customer, test.start, test.end)
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		}
		_, err := b.sink.Usage(t.Context(), "export", customer, began, now)
		require.ErrorContains(t, err, "no Stripe price")
		_, err = b.sink.Usage(t.Context(), feature, "cus_x", began, now)
		require.ErrorIs(t, err, stripesink.ErrNotFound)
		_, err = b.sink.Usage(t.Context(), feature, customer, now, now)
		require.ErrorContains(t, err, "end must be after start")
	})
}

func TestUsageOfOddAnswers(t *testing.T) {
	t.Parallel()
	const open = `{"object":"list","has_more":false,"data":[null,{"id":"sis_1","total_usage":5,"period":{"start":null,"end":null}},{"id":"sis_2","total_usage":%d}]}`
	tests := map[string]struct {
		status int
		body   string
		want   int64
		says   string // "": no error
	}{
		"open periods": {200, fmt.Sprintf(open, 2), 7, ""},
		"too much":     {200, fmt.Sprintf(open, int64(1<<63-3)), 0, "is over 9223372036854775807"},
		"endless":      {200, `{"object":"list","has_more":true,"data":[{"id":"sis_1","total_usage":1}]}`, 0, "more than 5000 periods of si_1"},
		"gone":         {404, stripeError("invalid_request_error", "resource_missing", "No such"), 0, "Stripe has no such item"},
		"forbidden":    {403, stripeError("invalid_request_error", "", "not allowed"), 0, "needs read access to usage records"},
		"failed":       {500, stripeError("api_error", "", "unknown"), 0, "status 500"},
		"proxy":        {200, `{"data":[]}`, 0, "is no list"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/subscriptions/sub_1" {
					fmt.Fprintf(w, subscribed, 1, 99999999999)
					return
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			defer server.Close()
			s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
				Key: "sk_live_1", BaseURL: server.URL, HTTPClient: server.Client(), Prices: map[string][]string{feature: {"price_sum"}},
			})
			got, err := s.Usage(t.Context(), feature, "sub_1", start, start.Add(time.Hour))
			require.Equal(t, test.want, got)
			if test.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.says)
			}
		})
	}
}
