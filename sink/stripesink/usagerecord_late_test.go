package stripesink_test

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func restamp(c *stripesink.UsageRecordsConfig) { c.Late = stripesink.RestampLate }

// sleepIntoNextPeriod has the period of customer end, and a record be late.
func (b *register) sleepIntoNextPeriod() (late sink.Record) {
	time.Sleep(20*day - 30*time.Second)
	late = usage(0, 7)
	late.Start = time.Now().UTC().Truncate(time.Second)
	late.End = late.Start.Add(20 * time.Second)
	time.Sleep(time.Minute)
	return late
}

func TestLateUsageWaitsForAPerson(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		inBubble(t, way, func(t *testing.T) {
			b := newRegister(t, change)
			ended := time.Now()
			late := b.sleepIntoNextPeriod()
			outcome, err := b.deliver(t, late)
			require.Equal(t, sink.Rejected, outcome)
			require.ErrorContains(t, err, "too late for its billing period")
			require.ErrorContains(t, err, "UsageRecordsConfig.Late")
			require.Zero(t, b.billed(customer))
			require.Zero(t, b.Billed(b.items[customer], ended))

			time.Sleep(time.Hour)
			outcome, _ = b.deliver(t, usage(-5, 5))
			require.Equal(t, sink.Delivered, outcome)
			require.EqualValues(t, 5, b.billed(customer))
		})
	}
}

// Stripe may still take a sum for the period before, for a few minutes. The sink tries.
func TestLateUsageInStripesGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, restamp)
		b.Grace = 5 * time.Minute
		before := time.Now()
		outcome, err := b.deliver(t, b.sleepIntoNextPeriod())
		require.Equal(t, sink.Delivered, outcome, "%v", err)
		require.EqualValues(t, 7, b.Billed(b.items[customer], before))
		require.Zero(t, b.billed(customer))
	})
}

func TestLateUsageIsRestamped(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		for _, fault := range append(everyFault, stripetest.Fault{}) {
			inBubble(t, way+" "+fault.String(), func(t *testing.T) {
				var log bytes.Buffer
				b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
					if restamp(c); change != nil {
						change(c)
					}
					c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				})
				late := b.sleepIntoNextPeriod()
				fault := fault
				fault.On = "usage_records"
				b.Script(stripetest.Fault{On: fault.On}, fault) // the second request adds it up
				outcomes := b.settle(t.Context(), t, []sink.Record{late})
				if fault.Answer == stripetest.Error500 {
					require.Equal(t, sink.InDoubt, outcomes[0], "the key answers 500 all day")
					require.Contains(t, []int64{0, 7}, b.billed(customer))
					require.Empty(t, log.String())
					return
				}
				require.Equal(t, sink.Delivered, outcomes[0])
				require.EqualValues(t, 7, b.billed(customer))
				require.Contains(t, log.String(), "billed at another time than its own")
				require.Contains(t, log.String(), late.ID)

				again := usage(1, 3) // what is set must not fall on what was added up
				time.Sleep(2 * time.Hour)
				outcomes = b.settle(t.Context(), t, []sink.Record{again})
				require.Equal(t, sink.Delivered, outcomes[0])
				require.EqualValues(t, 10, b.billed(customer))
			})
		}
	}
}

// What Stripe may have taken in time must not be billed once more, later.
func TestDoubtIsNeverRestamped(t *testing.T) {
	t.Parallel()
	faults := []stripetest.Fault{
		{Answer: stripetest.Drop, Applied: true}, {Answer: stripetest.Drop}, {Answer: stripetest.Hang, Applied: true},
		{Answer: stripetest.HTML502}, {Answer: stripetest.Garbled, Applied: true}, {Answer: stripetest.Truncated, Applied: true},
	}
	for _, fault := range faults {
		for _, restarted := range []bool{false, true} {
			inBubble(t, fault.String(), func(t *testing.T) {
				b := newRegister(t, restamp)
				time.Sleep(20*day - 30*time.Second)
				before := time.Now()
				r := usage(0, 7)
				r.Start, r.End = before.Add(-time.Minute), before
				fault := fault
				fault.On = "usage_records"
				b.Script(fault)
				outcome, _ := b.deliver(t, r)
				require.Equal(t, sink.InDoubt, outcome)
				if restarted {
					b.restart(t)
				}
				time.Sleep(2 * time.Minute)
				r.Attempt, r.Doubt = 2, true
				outcome, err := b.deliver(t, r)
				require.Equal(t, sink.Rejected, outcome, "%v", err)
				require.ErrorContains(t, err, "may be billed already")
				require.Zero(t, b.billed(customer))
				want := map[bool]int64{true: 7}[fault.Applied]
				require.Equal(t, want, b.Billed(b.items[customer], before))
			})
		}
	}
}

// What QuarantineLate has left to a person can be billed by RestampLate, in the same
// process and in another.
func TestLateUsageIsBilledAsAPersonDecides(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			late := stripesink.QuarantineLate
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Late = late })
			r := b.sleepIntoNextPeriod()
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.Rejected, outcome)
			if late = stripesink.RestampLate; restarted {
				time.Sleep(time.Hour)
			}
			b.restart(t)
			r.Attempt = 2
			outcome, err := b.deliver(t, r)
			require.Equal(t, sink.Delivered, outcome, "%v", err)
			require.EqualValues(t, 7, b.billed(customer))
		})
	}
}

// In Stripe's grace a second request might count as new usage, so it is not made.
func TestDoubtIsNotSentAgainAfterThePeriod(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, nil)
			b.Grace = 5 * time.Minute
			time.Sleep(20*day - 30*time.Second)
			r := usage(0, 7)
			r.Start, r.End = time.Now().Add(-time.Minute), time.Now()
			b.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"})
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.InDoubt, outcome)
			if restarted {
				b.restart(t)
			}
			time.Sleep(15 * time.Second) // the answer might come after the end
			r.Attempt, r.Doubt = 2, true
			outcome, err := b.deliver(t, r)
			require.Equal(t, sink.Pending, outcome)
			require.ErrorContains(t, err, "before an answer is sure")
			time.Sleep(sink.RetryDelay(err))
			outcome, err = b.deliver(t, r)
			require.Equal(t, sink.Rejected, outcome)
			require.ErrorContains(t, err, "its billing period is over")
			require.Equal(t, 1, b.RequestsTo(postUsage))
		})
	}
}

// A subscription may begin within the window of its customer's first usage. That is
// not late, whatever the policy says.
func TestFirstUsageOfASubscription(t *testing.T) {
	t.Parallel()
	for at := range 60 {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, nil)
			time.Sleep(time.Duration(at) * time.Second)
			b.AddCustomer(stripetest.Customer{ID: "cus_new"})
			sub := b.AddSubscription(stripetest.Subscription{Customer: "cus_new", Items: []stripetest.Item{{Price: "price_sum"}}})
			time.Sleep(time.Minute - time.Duration(at)*time.Second)
			r := usage(0, 7)
			r.Subject = "cus_new"
			outcomes := b.settle(t.Context(), t, []sink.Record{r})
			require.Equal(t, sink.Delivered, outcomes[0])
			require.EqualValues(t, 7, b.Billed(sub.Items[0].ID, time.Now()))
		})
	}
}

// Nobody is billed for what was used before they were there: a license may be another
// customer's by the time that its usage is late.
func TestLateUsageIsNotBilledToWhoCameAfter(t *testing.T) {
	t.Parallel()
	for began, want := range map[time.Duration]sink.Outcome{
		-time.Second: sink.Delivered, 0: sink.Rejected, time.Minute: sink.Rejected, time.Hour: sink.Rejected,
	} {
		inBubble(t, began.String(), func(t *testing.T) {
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { restamp(c); byLicense(c) })
			first := b.subscribe("cus_a", "price_sum")
			b.license(first, "key-1")
			r := usage(0, 7)
			r.Subject = "key-1"
			time.Sleep(time.Until(r.End) + began)
			b.ChangeSubscription(first.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
			b.AddCustomer(stripetest.Customer{ID: "cus_b"})
			next := b.AddSubscription(stripetest.Subscription{Customer: "cus_b", Items: []stripetest.Item{{Price: "price_sum"}}})
			b.license(next, "key-1")
			time.Sleep(2 * time.Hour)
			outcome, err := b.deliver(t, r)
			require.Equal(t, want, outcome, "%v", err)
			if want == sink.Rejected {
				require.ErrorContains(t, err, "did not exist when it was used")
				require.Zero(t, b.Billed(next.Items[0].ID, time.Now()))
			}
		})
	}
}

// A level of before can't be added up.
func TestLateLevelIsRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
			restamp(c)
			c.Prices = map[string][]string{feature: {"price_max"}}
		})
		b.subscribe("cus_2", "price_max")
		late := b.sleepIntoNextPeriod()
		late.Kind, late.Subject = sink.Max, "cus_2"
		outcome, err := b.deliver(t, late)
		require.Equal(t, sink.Rejected, outcome)
		require.ErrorContains(t, err, "a level of another time")
	})
}

// What was surely not sent before may be restamped on a later attempt.
func TestLateAfterAnOutage(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, restamp)
			time.Sleep(20*day - 30*time.Second)
			records := []sink.Record{usage(0, 7), usage(0, 70)}
			records[1].ID += "b"
			for i := range records {
				records[i].Start, records[i].End = time.Now().Add(time.Duration(i-2)*time.Minute), time.Now().Add(time.Duration(i-1)*time.Minute)
			}
			b.Script(stripetest.Fault{Answer: stripetest.Throttled, On: "usage_records"})
			require.Error(t, b.sink.Deliver(t.Context(), records))
			if restarted {
				b.restart(t)
			}
			time.Sleep(time.Hour)
			for i := range records {
				records[i].Attempt = 2
			}
			require.NoError(t, b.sink.Deliver(t.Context(), records))
			require.EqualValues(t, 77, b.billed(customer))
		})
	}
}

func TestRestampedDoubtEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, restamp)
		late := b.sleepIntoNextPeriod()
		lost := stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"}
		b.Script(stripetest.Fault{On: lost.On}, lost, lost)
		outcome, _ := b.deliver(t, late)
		require.Equal(t, sink.InDoubt, outcome)
		late.Attempt, late.Doubt = 2, true
		time.Sleep(22 * time.Hour)
		outcome, _ = b.deliver(t, late)
		require.Equal(t, sink.InDoubt, outcome)
		late.Attempt = 3
		time.Sleep(time.Hour)
		outcome, err := b.deliver(t, late)
		require.Equal(t, sink.Rejected, outcome)
		require.ErrorContains(t, err, "may have forgotten its key")
		require.EqualValues(t, 7, b.billed(customer))
		require.Equal(t, 3, b.RequestsTo(postUsage))
	})
}
