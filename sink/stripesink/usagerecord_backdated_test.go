package stripesink_test

import (
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// backdated is usage that is reported later, of the window of another record.
func backdated(of sink.Record, id string, quantity int64) sink.Record {
	of.ID, of.Quantity, of.Backdated = of.ID+id, quantity, true
	return of
}

// Usage of a window that was billed before is billed on top of it, once, whatever becomes
// of the requests.
func TestBackdatedUsageOverwritesNothing(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		for _, fault := range append(everyFault, stripetest.Fault{}) {
			inBubble(t, way+" "+fault.String(), func(t *testing.T) {
				b := newRegister(t, change)
				time.Sleep(time.Hour)
				first := usage(-5, 7)
				outcome, err := b.deliver(t, first)
				require.Equal(t, sink.Delivered, outcome, "%v", err)
				fault := fault
				fault.On = "usage_records"
				b.Script(fault)
				late := []sink.Record{backdated(first, "a", 20), backdated(first, "b", 300)}
				outcomes := b.settle(t.Context(), t, late)
				if fault.Answer == stripetest.Error500 {
					require.Equal(t, sink.InDoubt, outcomes[0], "the key answers 500 all day")
					require.Contains(t, []int64{307, 327}, b.billed(customer))
					return
				}
				require.Equal(t, []sink.Outcome{sink.Delivered, sink.Delivered}, outcomes)
				require.EqualValues(t, 327, b.billed(customer))
			})
		}
	}
}

// Without the memory of what was tried, a doubt is not sent again: only its key keeps it
// from being added up twice, and Stripe forgets that.
func TestBackdatedDoubtWaitsForAPerson(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{true, false} {
		inBubble(t, map[bool]string{true: "restarted", false: "a day later"}[restarted], func(t *testing.T) {
			b := newRegister(t, nil)
			b.Script(stripetest.Fault{On: "usage_records", Answer: stripetest.Drop, Applied: true})
			time.Sleep(time.Hour)
			r := backdated(usage(-5, 7), "a", 20)
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.InDoubt, outcome)
			r.Doubt, r.Attempt = true, 2
			if restarted {
				b.restart(t)
			} else {
				time.Sleep(24 * time.Hour)
			}
			outcome, err := b.deliver(t, r)
			require.Equal(t, sink.Rejected, outcome)
			require.ErrorContains(t, err, "may be billed already")
			require.EqualValues(t, 20, b.billed(customer))
		})
	}
}

// Usage that is reported after its period is over moves to the next one only if the
// configuration says so.
func TestBackdatedUsageOfAPeriodThatIsOver(t *testing.T) {
	t.Parallel()
	for _, policy := range []func(*stripesink.UsageRecordsConfig){nil, restamp} {
		inBubble(t, map[bool]string{true: "waits", false: "restamped"}[policy == nil], func(t *testing.T) {
			b := newRegister(t, policy)
			before := time.Now()
			late := backdated(b.sleepIntoNextPeriod(), "a", 20)
			time.Sleep(time.Hour)
			outcome, err := b.deliver(t, late)
			require.Zero(t, b.Billed(b.items[customer], before))
			if policy == nil {
				require.Equal(t, sink.Rejected, outcome)
				require.ErrorContains(t, err, "UsageRecordsConfig.Late")
				require.Zero(t, b.billed(customer))
				return
			}
			require.Equal(t, sink.Delivered, outcome, "%v", err)
			require.EqualValues(t, 20, b.billed(customer))
		})
	}
}
