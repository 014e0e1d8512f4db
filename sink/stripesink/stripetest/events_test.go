package stripetest_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestKeysReplayTheFirstAnswer(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	_, first, header := c.post("k", "a")
	require.Empty(t, header.Get("Idempotent-Replayed"))
	status, again, header := c.post("k", "a")
	require.Equal(t, 200, status)
	require.Equal(t, first, again)
	require.Equal(t, "true", header.Get("Idempotent-Replayed"))
	c.want(5)

	status, body, _ := c.post("k", "a", "payload[value]", "6")
	require.Equal(t, 400, status)
	require.Contains(t, body, `"idempotency_error"`)
	c.want(5)

	c.clock.Advance(24 * time.Hour)
	status, _, header = c.post("k", "a")
	require.Equal(t, 200, status)
	require.Empty(t, header.Get("Idempotent-Replayed"), "the key is forgotten")
	c.want(10) // and so is the identifier: this is the double bill that meter must not cause
}

func TestIdentifiersAreRefusedForADay(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.post("k1", "a")
	c.clock.Advance(24*time.Hour - 1)
	status, body, header := c.post("k2", "a")
	require.Equal(t, 400, status)
	require.Contains(t, body, `"message": "An event already exists with identifier a."`)
	require.Contains(t, body, `"invalid_request_error"`)
	require.NotContains(t, body, `"code"`)
	require.Equal(t, "false", header.Get("Stripe-Should-Retry"))
	c.want(5)
	c.clock.Advance(1)
	status, _, _ = c.post("k3", "a")
	require.Equal(t, 200, status)
	c.want(10)
}

func TestErrorIsReplayedAllDay(t *testing.T) {
	t.Parallel()
	for applied, total := range map[bool]int64{false: 0, true: 5} {
		c := newCaller(t)
		c.Script(stripetest.Fault{Answer: stripetest.Error500, Applied: applied})
		for range 3 {
			status, _, _ := c.post("k", "a")
			require.Equal(t, 500, status)
		}
		c.want(total)
		require.Equal(t, 1, c.Fired())
		c.post("fresh", "a")
		c.want(5)
	}
}

func TestFaultsStrikeBeforeAndAfter(t *testing.T) {
	t.Parallel()
	tests := map[stripetest.Answer]int{ // and the status that the client sees
		stripetest.Drop: 0, stripetest.HTML502: 502, stripetest.Truncated: 200, stripetest.Redirect: 307, stripetest.Garbled: 200,
	}
	for answer, want := range tests {
		for applied, total := range map[bool]int64{false: 0, true: 5} {
			c := newCaller(t)
			c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			c.Script(stripetest.Fault{Answer: answer, Applied: applied, RetryAfter: 3})
			status, body, header := c.post("k", "a")
			require.Equal(t, want, status, "%v", answer)
			c.want(total)
			if answer != stripetest.Drop {
				require.Equal(t, "3", header.Get("Retry-After"))
			}
			if answer == stripetest.Truncated {
				require.Contains(t, body, "unexpected EOF")
			}
			status, _, _ = c.post("k", "a")
			require.Equal(t, 200, status)
			c.want(5)
		}
	}
}

// Not applied, and not remembered either.
func TestThrottledLeavesNoTrace(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Script(stripetest.Fault{Answer: stripetest.Throttled})
	status, body, _ := c.post("k", "a")
	require.Equal(t, 429, status)
	require.Contains(t, body, "rate_limit")
	status, _, header := c.post("k", "a")
	require.Equal(t, 200, status)
	require.Empty(t, header.Get("Idempotent-Replayed"))
}

func TestRunningRequestHoldsItsKeyAndCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCaller(t)
		c.Script(stripetest.Fault{Delay: time.Minute})
		done := make(chan int)
		go func() { status, _, _ := c.post("k", "a"); done <- status }()
		synctest.Wait()

		status, body, _ := c.post("k", "a")
		require.Equal(t, 409, status)
		require.Contains(t, body, "idempotency_key_in_use")
		require.Zero(t, c.Overlaps())

		status, body, _ = c.post("k2", "b")
		require.Equal(t, 409, status)
		require.Contains(t, body, "lock_timeout")
		require.Equal(t, 1, c.Overlaps())

		require.Equal(t, 200, <-done)
		status, _, _ = c.post("k2", "b")
		require.Equal(t, 200, status, "a lock is not stored")
		c.want(10)
	})
}

func TestValidation(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	at := func(d time.Duration) string { return strconv.FormatInt(c.Now().Add(d).Unix(), 10) }
	for _, change := range [][]string{
		{"event_name", ""},
		{"event_name", strings.Repeat("x", 101)},
		{"identifier", strings.Repeat("x", 101)},
		{"timestamp", "yesterday"},
		{"timestamp", at(-35*24*time.Hour - time.Second)},
		{"timestamp", at(5*time.Minute + time.Second)},
	} {
		status, body, _ := c.post("k", "a", change...)
		require.Equal(t, 400, status, "%v", change)
		require.Contains(t, body, "invalid_request_error")
	}
	status, _, _ := c.post("k", "a")
	require.Equal(t, 200, status, "a refusal is not stored")
	require.Zero(t, c.Unbilled())

	for i, change := range [][]string{
		{"event_name", "unknown"},
		{"payload[stripe_customer_id]", "acme"},
		{"payload[value]", "1.5"},
	} {
		status, _, _ := c.post("", "late", append(change, "identifier", string(rune('b'+i)))...)
		require.Equal(t, 200, status, "%v", change)
		require.Equal(t, i+1, c.Unbilled())
	}
	c.want(5)
	require.Len(t, c.Events(), 4)
	require.Equal(t, 10, c.Requests())
}

func TestOnlyKey(t *testing.T) {
	t.Parallel()
	c := newCaller(t)
	c.Key = "sk_test_2"
	status, body, _ := c.post("k", "a")
	require.Equal(t, 401, status)
	require.Contains(t, body, "Invalid API Key")
	c.want(0)
}
