package mocktest

import (
	"bytes"
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

// The meter that stripe-mock lists; it knows no other.
var fixture = stripesink.Meter{EventName: "test-meter-event-name", CustomerKey: "customer"}

func newSink(transport http.RoundTripper, m stripesink.Meter) *stripesink.Sink {
	return stripesink.New(stripesink.Config{
		Key:        "sk_test_123",
		Meters:     map[string]stripesink.Meter{"tax-report": m},
		BaseURL:    "http://localhost",
		HTTPClient: &http.Client{Transport: transport},
	})
}

func record(id string) sink.Record {
	start := time.Now().UTC().Truncate(time.Minute).Add(-time.Hour)
	return sink.Record{
		ID: id, Feature: "tax-report", Subject: "cus_123", Dimensions: map[string]string{"region": "eu"},
		Quantity: 1<<53 - 1, Start: start, End: start.Add(time.Minute), Attempt: 1,
	}
}

// tamper sends what change makes of each form, and notes the answers.
type tamper struct {
	http.RoundTripper
	change   func(url.Values)
	statuses []int
}

func (tp *tamper) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(data))
		if err != nil {
			return nil, err
		}
		tp.change(form)
		data = []byte(form.Encode())
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	}
	resp, err := tp.RoundTripper.RoundTrip(r)
	if err == nil {
		tp.statuses = append(tp.statuses, resp.StatusCode)
	}
	return resp, err
}

func TestStripeMock(t *testing.T) {
	t.Parallel()
	mock := startMock(t)

	t.Run("takes events", func(t *testing.T) {
		t.Parallel()
		tp := &tamper{mock, func(url.Values) {}, nil}
		s := newSink(tp, fixture)
		again := record("01-b")
		again.Attempt = 2
		require.NoError(t, s.Validate())
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{record("01-a"), again}))
		require.Equal(t, []int{200, 200}, tp.statuses)
	})
	// What is refused proves that the mock looks at what it takes.
	for says, change := range map[string]func(url.Values){
		"'event_name' is required":      func(f url.Values) { f.Del("event_name") },
		"'timestamp' validation failed": func(f url.Values) { f.Set("timestamp", "now") },
		"additional properties are":     func(f url.Values) { f.Set("color", "red") },
		"'payload' is required": func(f url.Values) {
			for key := range f {
				if strings.HasPrefix(key, "payload[") {
					f.Del(key)
				}
			}
		},
	} {
		t.Run("refuses, "+says, func(t *testing.T) {
			t.Parallel()
			tp := &tamper{mock, change, nil}
			err := newSink(tp, fixture).Deliver(t.Context(), []sink.Record{record("01-a")})
			require.ErrorIs(t, err, sink.ErrRejected)
			require.ErrorContains(t, err, says)
			require.Equal(t, []int{400}, tp.statuses)
		})
	}
	t.Run("lists meters", func(t *testing.T) {
		t.Parallel()
		features := []sink.Feature{{Name: "tax-report"}}
		require.NoError(t, newSink(mock, fixture).Prepare(t.Context(), features))
		err := newSink(mock, stripesink.Meter{EventName: "other"}).Prepare(t.Context(), features)
		require.ErrorContains(t, err, "there is none of this event name")
		err = newSink(mock, stripesink.Meter{EventName: fixture.EventName}).Prepare(t.Context(), features)
		require.ErrorContains(t, err, `customer under "customer", not "stripe_customer_id"`)
	})
}
