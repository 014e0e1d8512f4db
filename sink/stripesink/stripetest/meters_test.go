package stripetest_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestCreateMeter(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	made := c.create("/v1/billing/meters", "event_name", "seats", "display_name", "Seats", "default_aggregation[formula]", "last",
		"event_time_window", "hour", "customer_mapping[type]", "by_id", "customer_mapping[event_payload_key]", "who",
		"value_settings[event_payload_key]", "n")
	id := made["id"].(string)
	require.Equal(t, made, c.get("/v1/billing/meters/"+id))
	require.Equal(t, "last", made["default_aggregation"].(object)["formula"])
	require.Equal(t, "hour", made["event_time_window"])
	require.Equal(t, "who", made["customer_mapping"].(object)["event_payload_key"])
	require.Equal(t, "n", made["value_settings"].(object)["event_payload_key"])
	plain := c.create("/v1/billing/meters", "event_name", "plain", "display_name", "Plain", "default_aggregation[formula]", "sum")
	require.Equal(t, "stripe_customer_id", plain["customer_mapping"].(object)["event_payload_key"])
	require.Equal(t, "value", plain["value_settings"].(object)["event_payload_key"])

	good := []string{"event_name", "x", "display_name", "X", "default_aggregation[formula]", "sum"}
	for words, change := range map[string][]string{
		"Missing required param: event_name.":                   {"event_name", ""},
		"Missing required param: display_name.":                 {"display_name", ""},
		"Missing required param: default_aggregation[formula].": {"default_aggregation[formula]", ""},
		"must be one of sum, count, last":                       {"default_aggregation[formula]", "max"},
		"must be one of hour, day":                              {"event_time_window", "minute"},
		"An active meter with the event name seats":             {"event_name", "seats"},
	} {
		form := append([]string(nil), good...)
		for i := 0; i < len(form); i += 2 {
			if form[i] == change[0] {
				form[i+1] = change[1]
				change = nil
				break
			}
		}
		c.refused("POST", "/v1/billing/meters", 400, words, append(form, change...)...)
	}

	off := c.create("/v1/billing/meters/" + id + "/deactivate")
	require.Equal(t, "inactive", off["status"])
	require.EqualValues(t, start.Unix(), off["status_transitions"].(object)["deactivated_at"])
	c.refused("POST", "/v1/billing/meters/"+id+"/deactivate", 400, "inactive already")
	second := c.create("/v1/billing/meters", "event_name", "seats", "display_name", "Seats", "default_aggregation[formula]", "last")
	c.refused("POST", "/v1/billing/meters/"+id+"/reactivate", 400, "An active meter with the event name seats")
	require.Equal(t, []string{second["id"].(string), plain["id"].(string), "mtr_1"}, ids(c.get("/v1/billing/meters", "status", "active")))
	require.Equal(t, []string{id}, ids(c.get("/v1/billing/meters", "status", "inactive")))
	c.create("/v1/billing/meters/" + second["id"].(string) + "/deactivate")
	require.Equal(t, "active", c.create("/v1/billing/meters/" + id + "/reactivate")["status"])
	c.refused("POST", "/v1/billing/meters/mtr_no/deactivate", 404, "No such meter")
	c.refused("GET", "/v1/billing/meters/mtr_no", 404, "No such meter")
}

// event sends an event for a meter at a time after the start.
func (c *caller) event(name, identifier string, value int, at time.Duration) {
	c.t.Helper()
	c.create("/v1/billing/meter_events", "event_name", name, "identifier", identifier,
		"payload[stripe_customer_id]", "cus_1", "payload[value]", strconv.Itoa(value),
		"timestamp", strconv.FormatInt(start.Add(at).Unix(), 10))
}

func TestFormulas(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		formula, window string
		want            int64
	}{
		{"sum", "", 8}, {"count", "", 5}, {"last", "", 1},
		{"sum", "hour", 2 - 3 + 1}, {"count", "hour", 3}, {"last", "hour", 1},
		{"sum", "day", 2 + 1}, {"count", "day", 2}, {"last", "day", 1},
	} {
		c := newCaller(t)
		c.clock.Advance(48 * time.Hour)
		c.AddMeter(stripetest.Meter{EventName: "m", Formula: test.formula, TimeWindow: test.window})
		c.event("m", "a", 5, 10*time.Minute)
		c.event("m", "b", 3, 20*time.Minute)
		c.event("m", "c", -3, 2*time.Hour)
		c.event("m", "d", 1, 24*time.Hour)
		c.event("m", "e", 2, 5*time.Minute) // came last, and is the earliest
		require.Equal(t, test.want, c.Total("cus_1", "m"), "%+v", test)
		c.event("m", "f", 4, 24*time.Hour)
		if test.formula == "last" {
			require.EqualValues(t, 4, c.Total("cus_1", "m"), "of one second, the one received last")
		}
		require.Zero(t, c.Total("cus_2", "m"))
		require.Zero(t, c.Total("cus_1", "calls"))
	}
}

func TestProblemsOfEvents(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.AddMeter(stripetest.Meter{EventName: "counted", Formula: "count", CustomerKey: "who"})
	c.AddMeter(stripetest.Meter{EventName: "off", Status: "inactive"})
	for i, test := range []struct {
		problem string
		form    []string
	}{
		{"no_meter", []string{"event_name", "none", "payload[value]", "1"}},
		{"archived_meter", []string{"event_name", "off", "payload[value]", "1"}},
		{"meter_event_no_customer_defined", []string{"event_name", "calls", "payload[value]", "1"}},
		{"meter_event_no_customer_defined", []string{"event_name", "counted", "payload[stripe_customer_id]", "cus_1"}},
		{"meter_event_customer_not_found", []string{"event_name", "calls", "payload[stripe_customer_id]", "cus_2", "payload[value]", "1"}},
		{"meter_event_value_not_found", []string{"event_name", "calls", "payload[stripe_customer_id]", "cus_1", "payload[n]", "1"}},
		{"meter_event_invalid_value", []string{"event_name", "calls", "payload[stripe_customer_id]", "cus_1", "payload[value]", "1.5"}},
		{"meter_event_invalid_value", []string{"event_name", "calls", "payload[stripe_customer_id]", "cus_1", "payload[value]", "9223372036854775808"}},
		{"", []string{"event_name", "counted", "payload[who]", "cus_1"}},
	} {
		c.create("/v1/billing/meter_events", test.form...)
		require.Equal(t, test.problem, c.Events()[i].Problem, "%v", test.form)
	}
	require.Equal(t, 8, c.Unbilled())
	require.EqualValues(t, 1, c.Total("cus_1", "counted"))
	c.want(0)
}

// An active meter comes before an archived one of the same name, and what each has
// is billed.
func TestMeterOfTheSameName(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.post("", "a")
	c.ChangeMeter("mtr_1", func(m *stripetest.Meter) { m.Status = "inactive" })
	c.post("", "b")
	c.AddMeter(stripetest.Meter{ID: "mtr_2", EventName: "calls"})
	c.post("", "c")
	require.Equal(t, []string{"", "archived_meter", ""},
		[]string{c.Events()[0].Problem, c.Events()[1].Problem, c.Events()[2].Problem})
	c.want(10)
}
