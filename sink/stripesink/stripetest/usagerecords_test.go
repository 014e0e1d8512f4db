package stripetest_test

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// newItem adds a subscription sub_1 of cus_1 to a price that aggregates usage.
func newItem(c *caller, aggregate string) (id string) {
	c.t.Helper()
	p := c.AddPrice(stripetest.Price{Aggregate: aggregate})
	return c.AddSubscription(stripetest.Subscription{
		ID: "sub_1", Customer: "cus_1", Items: []stripetest.Item{{Price: p.ID}},
	}).Items[0].ID
}

// use records usage at a time after the start, and returns the status.
func (c *caller) use(item, action string, quantity int, at time.Duration) (status int, message string) {
	c.t.Helper()
	status, o := c.do("POST", "/v1/subscription_items/"+item+"/usage_records", "quantity", strconv.Itoa(quantity),
		"action", action, "timestamp", strconv.FormatInt(start.Add(at).Unix(), 10))
	if status == 200 {
		return status, ""
	}
	return status, o["error"].(object)["message"].(string)
}

func (c *caller) mustUse(item, action string, quantity int, at time.Duration) {
	c.t.Helper()
	status, message := c.use(item, action, quantity, at)
	require.Equal(c.t, 200, status, message)
}

func TestSetAndIncrement(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	item := newItem(c, "sum")
	c.clock.Advance(time.Hour)
	c.mustUse(item, "set", 5, time.Minute)
	c.mustUse(item, "set", 5, time.Minute)
	require.EqualValues(t, 5, c.Billed(item, start), "set is a register")
	c.mustUse(item, "set", 7, 2*time.Minute)
	require.EqualValues(t, 12, c.Billed(item, start), "another second adds")
	c.mustUse(item, "increment", 1, 2*time.Minute)
	c.mustUse(item, "increment", 1, 2*time.Minute)
	require.EqualValues(t, 14, c.Billed(item, start), "increment adds")
	c.mustUse(item, "set", 0, 2*time.Minute)
	require.EqualValues(t, 5, c.Billed(item, start), "set to 0 takes back")
	o := c.create("/v1/subscription_items/"+item+"/usage_records", "quantity", "9", "timestamp", "now")
	require.EqualValues(t, start.Add(time.Hour).Unix(), o["timestamp"])
	require.Equal(t, 9.0, o["quantity"])
	require.Equal(t, stripetest.UsageRecord{Item: item, Action: "increment", Quantity: 9, Timestamp: start.Add(time.Hour).Unix()},
		c.UsageRecords(item)[6])
}

func TestAggregateUsage(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string][2]int64{ // of the first period, and of the second without usage
		"sum": {12, 0}, "max": {7, 0}, "last_during_period": {2, 0}, "last_ever": {2, 2},
	} {
		c := newCaller(t)
		item := newItem(c, mode)
		c.clock.Advance(time.Hour)
		c.mustUse(item, "set", 7, 2*time.Minute)
		c.mustUse(item, "set", 2, 3*time.Minute)
		c.mustUse(item, "set", 3, time.Minute) // came last, and is not the latest
		c.clock.Set(start.AddDate(0, 1, 1))
		require.Equal(t, want[0], c.Billed(item, start), mode)
		require.Equal(t, want[1], c.Billed(item, start.AddDate(0, 1, 0)), mode)
		c.mustUse(item, "set", 4, 31*24*time.Hour+time.Minute)
		require.Equal(t, want[0], c.Billed(item, start), "what comes later is of no account")
		require.EqualValues(t, 4, c.Billed(item, start.AddDate(0, 1, 0)))
		require.Zero(t, c.Billed(item, start.AddDate(0, 2, 0)), "no period yet")
		require.Zero(t, c.Billed(item, start.Add(-time.Second)), "no period")

		list := c.get("/v1/subscription_items/" + item + "/usage_record_summaries")["data"].([]any)
		running, closed := list[0].(object), list[1].(object)
		require.EqualValues(t, 4, running["total_usage"])
		require.EqualValues(t, want[0], closed["total_usage"])
		require.Nil(t, running["invoice"])
		require.NotNil(t, closed["invoice"])
		require.Equal(t, object{"start": float64(start.Unix()), "end": float64(start.AddDate(0, 1, 0).Unix())}, closed["period"])
	}
}

func TestWindowOfUsage(t *testing.T) {
	t.Parallel()
	const old, month = "must be after the subscription's last invoice period (or current period start time).", 31 * 24 * time.Hour
	c := newCaller(t)
	item := newItem(c, "sum")
	c.clock.Set(start.Add(month + time.Hour))
	for at, says := range map[time.Duration]string{
		month - time.Second:             old,
		month:                           old, // as has been seen
		month + time.Second:             "",
		month + time.Hour:               "",
		month + time.Hour + time.Second: "timestamps must not be in the future",
	} {
		status, message := c.use(item, "set", 1, at)
		require.Contains(t, message, says)
		require.Equal(t, says == "", status == 200, "%v: %s", at, message)
	}
	require.EqualValues(t, 2, c.Billed(item, start.Add(month)))
	require.Zero(t, c.Billed(item, start))
}

func TestGrace(t *testing.T) {
	t.Parallel()
	const month = 31 * 24 * time.Hour
	for _, test := range []struct {
		mode  string
		now   time.Duration // into the second period
		at    time.Duration // before it
		taken bool
	}{
		{"sum", time.Minute, time.Second, true},
		{"sum", time.Minute, 5 * time.Minute, true},
		{"sum", time.Minute, 5*time.Minute + time.Second, false},
		{"sum", 5*time.Minute - time.Second, time.Second, true},
		{"sum", 5 * time.Minute, time.Second, false},
		{"max", time.Minute, time.Second, false},
		{"last_ever", time.Minute, time.Second, false},
	} {
		c := newCaller(t)
		c.Grace = 5 * time.Minute
		item := newItem(c, test.mode)
		c.clock.Set(start.Add(month + test.now))
		status, _ := c.use(item, "set", 3, month-test.at)
		require.Equal(t, test.taken, status == 200, "%+v", test)
		if test.taken {
			require.EqualValues(t, 3, c.Billed(item, start), "it is on the old invoice")
			require.Zero(t, c.Billed(item, start.Add(month)))
		}
	}
	c := newCaller(t) // nothing was before the first period
	c.Grace = 5 * time.Minute
	item := newItem(c, "sum")
	status, _ := c.use(item, "set", 3, -time.Second)
	require.Equal(t, 400, status)
}

func TestUsageRefusals(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	add := func(p stripetest.Price, sub stripetest.Subscription, threshold int64) string {
		sub.Customer = "cus_1"
		sub.Items = []stripetest.Item{{Price: c.AddPrice(p).ID, UsageThreshold: threshold}}
		return c.AddSubscription(sub).Items[0].ID
	}
	none := stripetest.Subscription{}
	licensed := add(stripetest.Price{UsageType: "licensed"}, none, 0)
	metered := add(stripetest.Price{Meter: "mtr_1"}, none, 0)
	usageGTE := add(stripetest.Price{}, none, 10)
	amountGTE := add(stripetest.Price{}, stripetest.Subscription{AmountThreshold: 10}, 0)
	canceled := add(stripetest.Price{}, stripetest.Subscription{Status: "canceled"}, 0)
	paused := add(stripetest.Price{}, stripetest.Subscription{Status: "paused"}, 0)
	c.clock.Advance(time.Minute)
	for item, says := range map[string]string{
		licensed:  "Cannot create a usage record for `" + licensed + "` because it is not on the legacy metered billing system.",
		metered:   "Call /v1/billing/meter_events instead.",
		usageGTE:  "billing thresholds",
		amountGTE: "billing thresholds",
		canceled:  "Cannot create the usage record because the subscription has been canceled.",
		paused:    "",
		"si_no":   "No such subscription_item: 'si_no'",
	} {
		_, message := c.use(item, "set", 1, time.Second)
		require.Contains(t, message, says, item)
		require.Equal(t, says == "", message == "")
	}
	c.mustUse(usageGTE, "increment", 1, time.Second)
	path := "/v1/subscription_items/" + paused + "/usage_records"
	c.refused("POST", path, 400, "Missing required param: quantity.")
	c.refused("POST", path, 400, "Invalid integer: x", "quantity", "x")
	c.refused("POST", path, 400, "greater than or equal to 0", "quantity", "-1")
	c.refused("POST", path, 400, "Invalid action: must be one of increment, set", "quantity", "1", "action", "add")
	c.refused("POST", path, 400, "Received unknown parameter: price", "quantity", "1", "price", "x")
	require.Len(t, c.UsageRecords(paused), 1)
	c.refused("GET", "/v1/subscription_items/si_no/usage_record_summaries", 404, "No such subscription_item")
}

func TestOneUsageRecordOfAnItemAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(t)
		item := newItem(c, "sum")
		c.clock.Advance(time.Minute)
		c.Script(stripetest.Fault{Delay: time.Second})
		done := make(chan int)
		go func() { status, _ := c.use(item, "increment", 1, time.Second); done <- status }()
		synctest.Wait()
		status, _ := c.use(item, "increment", 1, time.Second)
		require.Equal(t, 429, status)
		require.Equal(t, 200, <-done)
		require.Equal(t, 1, c.Overlaps())
		require.EqualValues(t, 1, c.Billed(item, start))
	})
}

// A price with a meter bills the events of the customer.
func TestBilledByMeter(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	p := c.AddPrice(stripetest.Price{Meter: "mtr_1"})
	item := c.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: p.ID}}}).Items[0].ID
	end := start.AddDate(0, 1, 0)
	c.clock.Set(end.Add(time.Minute))
	at := func(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
	c.post("", "a", "timestamp", at(end.Add(-time.Second)))
	c.post("", "b", "timestamp", at(end), "payload[value]", "7")
	require.EqualValues(t, 5, c.Billed(item, start))
	require.EqualValues(t, 7, c.Billed(item, end))
	c.want(12)
}

// A refusal that depends on what is stored is stored itself: its key is spent.
func TestRefusalIsReplayed(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	item := newItem(c, "sum")
	send := func() (int, http.Header) {
		status, _, header := c.send("POST", "/v1/subscription_items/"+item+"/usage_records", url.Values{
			"quantity": {"1"}, "timestamp": {strconv.FormatInt(start.Add(time.Minute).Unix(), 10)},
		}, http.Header{"Idempotency-Key": {"k"}})
		return status, header
	}
	status, _ := send()
	require.Equal(t, 400, status, "it lies in the future")
	c.clock.Advance(time.Hour)
	status, header := send()
	require.Equal(t, 400, status)
	require.Equal(t, "true", header.Get("Idempotent-Replayed"))
	c.clock.Advance(23 * time.Hour)
	status, _ = send()
	require.Equal(t, 200, status)
	require.EqualValues(t, 1, c.Billed(item, start))
}
