package stripesink_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// A clock that is ahead sends usage that Stripe refuses, but only for now.
func TestUsageRecordsOfAClockThatIsAhead(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		inBubble(t, way, func(t *testing.T) {
			b := newRegister(t, change)
			b.ago.Store(int64(10 * time.Minute))
			records := []sink.Record{usage(-5, 1), usage(-4, 2)}
			err := b.sink.Deliver(t.Context(), records)
			require.Equal(t, []sink.Outcome{sink.Pending, sink.Pending}, judge(err, 2))
			require.ErrorContains(t, err, "clock is 10m0s ahead of Stripe's")
			require.InDelta(t, 5*time.Minute, sink.RetryDelay(err), float64(time.Minute))
			require.Equal(t, 1, b.RequestsTo(postUsage), "the others would fare no better")

			time.Sleep(sink.RetryDelay(err))
			outcome, err := b.deliver(t, records[0])
			require.Equal(t, sink.Delivered, outcome, "%v", err)
		})
	}
}

// A clock that is behind makes usage too old, at the begin of a period. Waiting does
// not help, but knowing does.
func TestUsageRecordsOfAClockThatIsBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		b.ago.Store(-int64(10 * time.Minute))
		time.Sleep(20*day - 5*time.Minute)
		outcome, err := b.deliver(t, usage(-1, 1))
		require.Equal(t, sink.Rejected, outcome)
		require.ErrorContains(t, err, "clock is 10m0s behind Stripe's")
	})
}

func TestMeterEventsOfAClockThatIsAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := stripetest.New(stripetest.Meter{EventName: event})
		server.AnyCustomer = true
		server.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		client, stop := server.Pipe()
		t.Cleanup(stop)
		s := newSink(client)
		r := usage(-1, 3) // a minute ago: 9 minutes ahead of Stripe, which takes 5
		err := s.Deliver(t.Context(), []sink.Record{r})
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.ErrorContains(t, err, "clock is 10m0s ahead of Stripe's")
		require.InDelta(t, 5*time.Minute, sink.RetryDelay(err), float64(5*time.Second))
		time.Sleep(sink.RetryDelay(err))
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
		require.EqualValues(t, 3, server.Total(customer, event))
	})
}

// Only Stripe's own clock explains such a refusal.
func TestRefusedTimesThatNoClockExplains(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]func(http.Header){
		"right clock": func(http.Header) {},
		"no date":     func(h http.Header) { h["Date"] = nil },
		"no clock":    func(h http.Header) { h.Set("Date", "today") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := answering(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				header(w.Header())
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, stripeError("invalid_request_error", "", "Cannot create the usage record with this timestamp because of its color."))
			})
			err := s.Deliver(t.Context(), []sink.Record{hourAgo(1)})
			require.Equal(t, sink.Rejected, judge(err, 1)[0])
			require.ErrorContains(t, err, "of its color")
			require.ErrorContains(t, err, "the running period of sub_1 began before")
			require.NotContains(t, err.Error(), "this machine's clock")
		})
	}
}

// A window that Flush ended early may have its second yet to come.
func TestSecondsOfTheFutureWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Instances = 60 })
		r := usage(0, 3)
		r.Start = time.Now()
		r.End = r.Start.Add(time.Second)
		time.Sleep(time.Second)
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Pending, outcome)
		require.Positive(t, sink.RetryDelay(err))
		require.LessOrEqual(t, sink.RetryDelay(err), time.Minute)
		time.Sleep(sink.RetryDelay(err))
		outcome, err = b.deliver(t, r)
		require.Equal(t, sink.Delivered, outcome, "%v", err)
	})
}
