package stripetest_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// summary reads the event summaries of cus_1, as minutes after the start and values.
func (c *caller) summary(meter string, from, to time.Duration, pairs ...string) map[int]float64 {
	c.t.Helper()
	at := func(d time.Duration) string { return strconv.FormatInt(start.Add(d).Unix(), 10) }
	list := c.get("/v1/billing/meters/"+meter+"/event_summaries",
		append(pairs, "customer", "cus_1", "start_time", at(from), "end_time", at(to))...)
	values := map[int]float64{}
	for _, o := range list["data"].([]any) {
		minute := time.Unix(int64(o.(object)["start_time"].(float64)), 0).Sub(start) / time.Minute
		values[int(minute)] = o.(object)["aggregated_value"].(float64)
	}
	return values
}

func TestEventSummaries(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.clock.Advance(48 * time.Hour)
	c.event("calls", "a", 5, 0)
	c.event("calls", "b", 7, time.Minute-time.Second)
	c.event("calls", "c", 11, time.Minute)
	c.event("calls", "d", 13, 2*time.Hour)
	for _, test := range []struct {
		from, to time.Duration
		window   string
		want     map[int]float64
	}{
		{0, time.Minute, "", map[int]float64{0: 12}},
		{time.Minute, 2 * time.Minute, "", map[int]float64{1: 11}},
		{2 * time.Minute, time.Hour, "", map[int]float64{}},
		{0, 24 * time.Hour, "", map[int]float64{0: 36}},
		{0, 24 * time.Hour, "hour", map[int]float64{0: 23, 120: 13}},
		{0, 24 * time.Hour, "day", map[int]float64{0: 36}},
		{-24 * time.Hour, 48 * time.Hour, "day", map[int]float64{0: 36}},
	} {
		var pairs []string
		if test.window != "" {
			pairs = []string{"value_grouping_window", test.window}
		}
		require.Equal(t, test.want, c.summary("mtr_1", test.from, test.to, pairs...), "%+v", test)
	}
	hours := c.get("/v1/billing/meters/mtr_1/event_summaries", "customer", "cus_1", "limit", "1", "value_grouping_window", "hour",
		"start_time", strconv.FormatInt(start.Unix(), 10), "end_time", strconv.FormatInt(start.Add(24*time.Hour).Unix(), 10))
	require.Equal(t, true, hours["has_more"])
	require.Equal(t, 13.0, hours["data"].([]any)[0].(object)["aggregated_value"], "newest first")
}

func TestEventSummaryRefusals(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	from, to := strconv.FormatInt(start.Unix(), 10), strconv.FormatInt(start.Add(time.Hour).Unix(), 10)
	off := strconv.FormatInt(start.Add(time.Second).Unix(), 10)
	half := strconv.FormatInt(start.Add(30*time.Minute).Unix(), 10)
	const path = "/v1/billing/meters/mtr_1/event_summaries"
	c.refused("GET", path, 400, "Missing required param: customer.", "start_time", from, "end_time", to)
	c.refused("GET", path, 400, "Missing required param: start_time.", "customer", "cus_1", "end_time", to)
	c.refused("GET", path, 400, "Missing required param: end_time.", "customer", "cus_1", "start_time", from)
	c.refused("GET", path, 400, "aligned", "customer", "cus_1", "start_time", off, "end_time", to)
	c.refused("GET", path, 400, "aligned", "customer", "cus_1", "start_time", to, "end_time", from)
	c.refused("GET", path, 400, "aligned", "customer", "cus_1", "start_time", from, "end_time", half, "value_grouping_window", "hour")
	c.refused("GET", path, 404, "No such customer", "customer", "cus_2", "start_time", from, "end_time", to)
	c.refused("GET", "/v1/billing/meters/mtr_2/event_summaries", 404, "No such meter", "customer", "cus_1", "start_time", from, "end_time", to)
}

func TestEventSummariesLag(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.SummaryLag = time.Hour
	c.clock.Advance(time.Minute)
	c.event("calls", "a", 5, 0)
	c.clock.Advance(30 * time.Minute)
	c.event("calls", "b", 7, 0)
	require.Empty(t, c.summary("mtr_1", 0, time.Minute))
	c.clock.Advance(30 * time.Minute)
	require.Equal(t, map[int]float64{0: 5}, c.summary("mtr_1", 0, time.Minute))
	c.clock.Advance(30 * time.Minute)
	require.Equal(t, map[int]float64{0: 12}, c.summary("mtr_1", 0, time.Minute))

	c.cancel("a")
	c.want(7)
	require.Equal(t, map[int]float64{0: 12}, c.summary("mtr_1", 0, time.Minute), "not seen yet")
	c.clock.Advance(time.Hour)
	require.Equal(t, map[int]float64{0: 7}, c.summary("mtr_1", 0, time.Minute))
}

// cancel cancels an event of the meter for calls.
func (c *caller) cancel(identifier string) object {
	c.t.Helper()
	return c.create("/v1/billing/meter_event_adjustments", "event_name", "calls", "type", "cancel", "cancel[identifier]", identifier)
}

func TestAdjustments(t *testing.T) {
	t.Parallel()
	const path = "/v1/billing/meter_event_adjustments"
	c := newCaller(t)
	c.post("", "a")
	c.post("", "b")
	require.Equal(t, "pending", c.cancel("a")["status"])
	c.want(5)
	require.True(t, c.Events()[0].Canceled)
	c.refused("POST", path, 400, "canceled already", "event_name", "calls", "type", "cancel", "cancel[identifier]", "a")
	c.refused("POST", path, 400, "No such meter event: 'c'", "event_name", "calls", "type", "cancel", "cancel[identifier]", "c")
	c.refused("POST", path, 400, "No such meter event: 'b'", "event_name", "other", "type", "cancel", "cancel[identifier]", "b")
	c.refused("POST", path, 400, "Missing required param: cancel[identifier].", "event_name", "calls", "type", "cancel")
	c.refused("POST", path, 400, "Invalid type", "event_name", "calls", "type", "undo", "cancel[identifier]", "b")
	status, body, _ := c.post("", "a")
	require.Equal(t, 400, status)
	require.Contains(t, body, "An event already exists with identifier a.", "a canceled one stays taken")

	c.clock.Advance(24 * time.Hour)
	c.refused("POST", path, 400, "within 24 hours", "event_name", "calls", "type", "cancel", "cancel[identifier]", "b")
	c.want(5)
}

// What a pre-aggregated window had before a canceled event counts again.
func TestCancelWithinAWindow(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.ChangeMeter("mtr_1", func(m *stripetest.Meter) { m.TimeWindow = "day" })
	c.post("", "a")
	c.post("", "b", "payload[value]", "9")
	c.want(9)
	c.cancel("b")
	c.want(5)
}
