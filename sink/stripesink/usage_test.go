package stripesink_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// Stripe tells whole minutes: the bounds are widened to them.
func TestUsage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		midnight := lately(0, 1).Start
		time.Sleep(10 * time.Minute)
		a.recorded(t, lately(1, 1), lately(2, 10), lately(3, 100), lately(4, 1000))
		for _, test := range []struct {
			start, end time.Duration
			want       int64
		}{
			{0, time.Hour, 1111},
			{2 * time.Minute, 4 * time.Minute, 110},
			{2*time.Minute + 59*time.Second, 3*time.Minute + time.Nanosecond, 110},
			{3 * time.Minute, 3*time.Minute + 1, 100},
			{-time.Hour, 0, 0},
			{5 * time.Minute, time.Hour, 0},
		} {
			start := midnight.Add(test.start).In(time.FixedZone("odd", 5*3600+1800+17))
			got, err := a.sink.Usage(t.Context(), feature, customer, start, midnight.Add(test.end))
			require.NoError(t, err)
			require.Equal(t, test.want, got, "%+v", test)
		}
		got, err := a.sink.Usage(t.Context(), feature, "cus_2", midnight, midnight.Add(time.Hour))
		require.NoError(t, err)
		require.Zero(t, got)
	})
}

func TestUsageComesLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.SummaryLag = time.Hour
		r := lately(0, 7)
		time.Sleep(time.Minute)
		a.recorded(t, r)
		for _, want := range []int64{0, 7} {
			got, err := a.sink.Usage(t.Context(), feature, customer, r.Start, r.End)
			require.NoError(t, err)
			require.Equal(t, want, got)
			time.Sleep(2 * time.Hour)
		}
	})
}

func TestUsageFailsByName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripesink.Config) { c.Meters["gone"] = stripesink.Meter{EventName: "gone"} })
		midnight := lately(0, 1).Start
		usage := func(feature, subject string, end time.Duration) error {
			_, err := a.sink.Usage(t.Context(), feature, subject, midnight, midnight.Add(end))
			return err
		}
		require.ErrorContains(t, usage("export", customer, time.Hour), `feature "export"`)
		require.ErrorContains(t, usage("gone", customer, time.Hour), `no meter of event name "gone"`)
		require.ErrorContains(t, usage(feature, "acme", time.Hour), `subject "acme"`)
		require.ErrorContains(t, usage(feature, "cus_3", time.Hour), "No such customer")
		require.ErrorContains(t, usage(feature, customer, 0), "end must be after start")
		require.ErrorContains(t, usage(feature, customer, -time.Hour), "end must be after start")

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := a.sink.Usage(ctx, feature, customer, midnight, midnight.Add(time.Hour))
		require.ErrorContains(t, err, "context canceled")
		a.Forbid("GET /v1/billing/meters/{id}/event_summaries")
		require.ErrorContains(t, usage(feature, customer, time.Hour), "read access to billing meters")
		_, err = stripesink.New(stripesink.Config{}).Usage(t.Context(), feature, customer, midnight, midnight.Add(1))
		require.ErrorContains(t, err, "Config.Key")
	})
}

// The answers of a Stripe that is not one, or has gone mad, are no totals.
func TestUsageAgainstOddSummaries(t *testing.T) {
	t.Parallel()
	const meters = `{"object":"list","data":[{"id":"mtr_1","event_name":"tax_report","status":"active","default_aggregation":{"formula":%q}}]}`
	const from, to = 1772366400, 1772366460
	part := func(value string) string {
		return fmt.Sprintf(`{"id":"s_1","object":"billing.meter_event_summary","aggregated_value":%s,"meter":"mtr_1","start_time":%d,"end_time":%d}`, value, from, to)
	}
	list := func(more bool, parts string) string {
		return fmt.Sprintf(`{"object":"list","has_more":%v,"data":[%s]}`, more, parts)
	}
	tests := map[string]struct {
		formula  string
		body     string
		want     int64
		says     string
		requests int
	}{
		"none":             {body: list(false, ""), requests: 1},
		"one":              {body: list(false, part("7")), want: 7, requests: 1},
		"float":            {body: list(false, part("7.0e2")), want: 700, requests: 1},
		"below nothing":    {body: list(false, part("-7")), want: -7, requests: 1},
		"two":              {body: list(false, part("7")+","+part("8")), want: 15, requests: 1},
		"two last":         {formula: "last", body: list(false, part("7")+","+part("8")), says: "2 summaries", requests: 1},
		"half":             {body: list(false, part("7.5")), says: "no whole number", requests: 1},
		"exact to the end": {body: list(false, part("9007199254740992")), want: 1 << 53, requests: 1},
		"too much":         {body: list(false, part("9007199254740994")), says: "too large", requests: 1},
		"endless":          {body: list(true, part("1")), says: "more than 5000 summaries", requests: 50},
		"no list":          {body: `{}`, says: "no list", requests: 1},
		"data alone":       {body: `{"data":[]}`, says: "no list", requests: 1},
		"null":             {body: list(false, "null"), says: "another meter or time", requests: 1},
		"another meter":    {body: list(false, strings.Replace(part("7"), "mtr_1", "mtr_2", 1)), says: "another meter or time", requests: 1},
		"from before": {
			body: list(false, fmt.Sprintf(`{"meter":"mtr_1","start_time":%d,"end_time":%d}`, from-60, to)), says: "another meter or time", requests: 1,
		},
		"until after": {
			body: list(false, fmt.Sprintf(`{"meter":"mtr_1","start_time":%d,"end_time":%d}`, from, to+60)), says: "another meter or time", requests: 1,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			if test.formula == "" {
				test.formula = "sum"
			}
			s := stripesink.New(config(func(c *stripesink.Config) {
				c.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/v1/billing/meters" {
						return reply(r, 200, fmt.Sprintf(meters, test.formula)), nil
					}
					requests++
					return reply(r, 200, test.body), nil
				})}
			}))
			got, err := s.Usage(t.Context(), feature, customer, time.Unix(from, 0), time.Unix(to, 0))
			require.Equal(t, test.want, got)
			require.Equal(t, test.requests, requests)
			if test.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.says)
			}
		})
	}
}

// A meter that was made after the others were listed is found at once.
func TestUsageFindsANewMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripesink.Config) { c.Meters["export"] = stripesink.Meter{EventName: "export"} })
		midnight := lately(0, 1).Start
		usage := func(feature string) error {
			_, err := a.sink.Usage(t.Context(), feature, customer, midnight, midnight.Add(time.Hour))
			return err
		}
		require.NoError(t, usage(feature))
		require.Error(t, usage("export"))
		a.AddMeter(stripetest.Meter{EventName: "export"})
		require.NoError(t, usage("export"))
		listed := a.RequestsTo("GET /v1/billing/meters")
		require.NoError(t, usage(feature))
		require.Equal(t, listed, a.RequestsTo("GET /v1/billing/meters"))
		time.Sleep(11 * time.Minute)
		require.NoError(t, usage(feature))
		require.Equal(t, listed+1, a.RequestsTo("GET /v1/billing/meters"))
	})
}
