package stripesink_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// Whatever is answered, only Stripe's own word counts as delivered.
func FuzzUsageRecordAnswer(f *testing.F) {
	for _, status := range []int{200, 201, 302, 400, 404, 409, 429, 500} {
		f.Add(status, `{"object":"usage_record"}`, "Fri, 01 Jan 2100 00:00:00 GMT")
		f.Add(status, stripeError("invalid_request_error", "", "timestamp"), "Fri, 01 Jan 1999 00:00:00 GMT")
		f.Add(status, stripeError("invalid_request_error", "resource_missing", "No such"), "")
		f.Add(status, "<html>", "x")
	}
	var status int
	var body, date string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprintf(w, subscribed, 1, 99999999999)
			return
		}
		w.Header()["Date"] = []string{date}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	f.Cleanup(server.Close)
	s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
		Key: "sk_live_1", BaseURL: server.URL, HTTPClient: server.Client(), Prices: map[string][]string{feature: {"price_sum"}},
	})
	f.Fuzz(func(t *testing.T, answered int, text, when string) {
		if answered < 200 || answered > 599 || strings.ContainsAny(when, "\r\n") {
			t.Skip("no status or header that a server could send")
		}
		status, body, date = answered, text, when
		err := s.Deliver(t.Context(), []sink.Record{hourAgo(1)})
		var made struct{ Object string }
		theirs := answered < 300 && json.Unmarshal([]byte(text), &made) == nil && made.Object == "usage_record"
		if outcome := judge(err, 1)[0]; outcome == sink.Delivered {
			require.True(t, theirs, "%d %q", answered, text)
		} else if answered < 300 || answered >= 500 {
			require.Equal(t, sink.InDoubt, outcome, "%d %q: %v", answered, text, err)
		}
	})
}

// A subject must not become more than a value in the query.
func FuzzSearchedSubject(f *testing.F) {
	for _, seed := range []string{"key-1", "a'b", `a\`, "a' OR status:'active", "cus_1", "é", "", "\n", "sub_1'"} {
		f.Add(seed)
	}
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("query"))
		fmt.Fprint(w, `{"object":"search_result","data":[]}`)
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, subject string) {
		asked = nil
		s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
			Key: "sk_live_1", BaseURL: server.URL, HTTPClient: server.Client(), SubjectMetadata: field,
			Prices: map[string][]string{feature: {"price_sum"}},
		})
		r := hourAgo(1)
		r.Subject = subject
		require.Error(t, s.Deliver(t.Context(), []sink.Record{r}))
		for _, query := range asked {
			if query != "" {
				require.Equal(t, "metadata['"+field+"']:'"+subject+"'", query)
				require.Equal(t, 4, strings.Count(query, "'"))
				require.NotContains(t, query, `\`)
			}
		}
	})
}
