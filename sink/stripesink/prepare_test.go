package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestPrepare(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		meters []stripetest.Meter
		kind   sink.Kind
		says   []string // none: fit
	}{
		"fit":     {meters: []stripetest.Meter{{EventName: event}}},
		"missing": {meters: []stripetest.Meter{{EventName: "other"}}, says: []string{"there is none of this event name", `Config.Meters["tax-report"].EventName`}},
		"archived": {
			meters: []stripetest.Meter{{EventName: event, Status: "inactive"}},
			says:   []string{"it is inactive: reactivate it"},
		},
		"archived beside active": {meters: []stripetest.Meter{{EventName: event}, {EventName: event, Status: "inactive"}}},
		"active beside archived": {meters: []stripetest.Meter{{EventName: event, Status: "inactive"}, {EventName: event}}},
		"count":                  {meters: []stripetest.Meter{{EventName: event, Formula: "count"}}, says: []string{`its formula is "count"`}},
		"last":                   {meters: []stripetest.Meter{{EventName: event, Formula: "last"}}, says: []string{`its formula is "last"`}},
		"hourly":                 {meters: []stripetest.Meter{{EventName: event, TimeWindow: "hour"}}, says: []string{"only the last event of each hour"}},
		"level":                  {meters: []stripetest.Meter{{EventName: event, Formula: "last"}}, kind: sink.Last},
		"level by the hour":      {meters: []stripetest.Meter{{EventName: event, TimeWindow: "hour"}}, kind: sink.Last},
		"level by the day":       {meters: []stripetest.Meter{{EventName: event, TimeWindow: "day"}}, kind: sink.Last},
		"level of the last hour": {meters: []stripetest.Meter{{EventName: event, TimeWindow: "hour", Formula: "last"}}, kind: sink.Last},
		"level that adds up":     {meters: []stripetest.Meter{{EventName: event}}, kind: sink.Last, says: []string{"the levels of all windows would add up"}},
		"level that is counted":  {meters: []stripetest.Meter{{EventName: event, Formula: "count"}}, kind: sink.Last, says: []string{"takes no notice of levels"}},
		"counted by the hour":    {meters: []stripetest.Meter{{EventName: event, Formula: "count", TimeWindow: "hour"}}, kind: sink.Last, says: []string{"takes no notice of levels"}},
		"other keys": {
			meters: []stripetest.Meter{{EventName: event, CustomerKey: "who", ValueKey: "n"}},
			says:   []string{`customer under "who", not "stripe_customer_id"`, `value under "n", not "value"`},
		},
		"max": {meters: []stripetest.Meter{{EventName: event}}, kind: sink.Max, says: []string{"can't bill kind max"}},
		"all at once": {
			meters: []stripetest.Meter{{EventName: event, Formula: "count", Status: "inactive", TimeWindow: "day"}},
			says:   []string{"inactive", "count", "each day"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, test.meters...)
			err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature, Kind: test.kind}})
			if test.says == nil {
				require.NoError(t, err)
				return
			}
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.ErrorContains(t, err, `feature "tax-report", Stripe meter "tax_report"`)
		})
	}
}

func TestPrepareComparesModes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	client, stop := b.Pipe()
	t.Cleanup(stop)
	b.Live = true
	s := stripesink.New(config(func(c *stripesink.Config) { c.BaseURL, c.HTTPClient = gateway(client) }))
	err := s.Prepare(t.Context(), []sink.Feature{{Name: feature}})
	require.ErrorContains(t, err, "it belongs to live mode, and the key to test mode")
	b.Live = false
	require.NoError(t, s.Prepare(t.Context(), []sink.Feature{{Name: feature}}))
}

func TestPrepareNamesTheFeatureAtFault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: "export"}, {Name: feature}, {Name: feature, Kind: sink.Last}})
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok)
	require.Len(t, batch.Errs, 3)
	require.ErrorContains(t, batch.Errs[0], `no Stripe meter for feature "export"`)
	require.NoError(t, batch.Errs[1])
	require.ErrorContains(t, batch.Errs[2], "would add up")
}

func TestPrepareReadsAllPages(t *testing.T) {
	t.Parallel()
	var meters []stripetest.Meter
	for i := range 250 {
		meters = append(meters, stripetest.Meter{EventName: fmt.Sprintf("other %d", i)})
	}
	b := newBench(t, append(meters, stripetest.Meter{EventName: event})...)
	require.NoError(t, b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}}))
	require.Equal(t, 3, b.Requests())
}

// A list that fails on its second page must not pass for an account without the meter.
func TestPrepareFailsWithTheList(t *testing.T) {
	t.Parallel()
	var meters []stripetest.Meter
	for i := range 150 {
		meters = append(meters, stripetest.Meter{EventName: fmt.Sprintf("other %d", i)})
	}
	for _, fault := range []stripetest.Fault{
		{Answer: stripetest.Error500},
		{Answer: stripetest.HTML502, RetryAfter: 9},
		{Answer: stripetest.Throttled, RetryAfter: 9},
		{Answer: stripetest.Truncated},
		{Answer: stripetest.Redirect},
		{Answer: stripetest.Garbled},
	} {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, meters...)
			b.Script(stripetest.Fault{}, fault)
			err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
			require.ErrorContains(t, err, "listing the billing meters")
			require.NotContains(t, err.Error(), "none of this event name")
			require.EqualValues(t, fault.RetryAfter, sink.RetryDelay(err).Seconds())
			require.Equal(t, 2, b.Requests())
		})
	}
}

func TestPrepareAgainstOddLists(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status   int
		body     string
		says     string
		requests int
	}{
		"endless":       {200, `{"object":"list","has_more":true,"data":[{"id":"mtr_1","event_name":"x"}]}`, "more than 5000 billing meters", 50},
		"empty, more":   {200, `{"object":"list","has_more":true,"data":[]}`, "none of this event name", 1},
		"null":          {200, `{"object":"list","has_more":false,"data":[null]}`, "none of this event name", 1},
		"bare meter":    {200, `{"object":"list","data":[{"id":"mtr_1","event_name":"tax_report","status":"active"}]}`, `its formula is ""`, 1},
		"no permission": {403, `{"error":{"type":"invalid_request_error","message":"The provided key lacks permissions"}}`, "needs read access to billing meters", 1},
		"redirect":      {302, `{"object":"list","data":[]}`, "(status 302)", 1},
		"long words":    {500, fmt.Sprintf(`{"error":{"type":"api_error","message":"%5000d"}}`, 1), "(status 500)", 1},
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
			t.Cleanup(server.Close)
			s := stripesink.New(config(func(c *stripesink.Config) { c.BaseURL, c.HTTPClient = server.URL, server.Client() }))
			err := s.Prepare(t.Context(), []sink.Feature{{Name: feature}})
			require.ErrorContains(t, err, test.says)
			require.Less(t, len(err.Error()), 1000)
			require.Equal(t, test.requests, requests)
		})
	}
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, b.sink.Prepare(ctx, []sink.Feature{{Name: feature}}), "context canceled")
}

// A broken connection under a read may be tried once more, by net/http.
func TestPrepareFailsWithTheConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Script(stripetest.Fault{Answer: stripetest.Drop}, stripetest.Fault{Answer: stripetest.Drop})
	err := b.sink.Prepare(t.Context(), []sink.Feature{{Name: feature}})
	require.ErrorContains(t, err, "listing the billing meters")
}
