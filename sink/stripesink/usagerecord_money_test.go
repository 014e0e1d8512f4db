package stripesink_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func increment(c *stripesink.UsageRecordsConfig) { c.Increment = true }

// ways are the two that usage records can be sent in.
var ways = map[string]func(*stripesink.UsageRecordsConfig){"set": nil, "increment": increment}

func TestEveryFaultBillsAUsageRecordOnce(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		for _, fault := range everyFault {
			for _, on := range []string{"usage_records", "GET"} {
				for times := 1; times <= 3; times++ {
					inBubble(t, fmt.Sprintf("%s, %s, %v x%d", way, on, fault, times), func(t *testing.T) {
						b := newRegister(t, change)
						fault := fault
						fault.On = on
						if on != "GET" { // there is one read only, of who pays
							b.Script(stripetest.Fault{On: on}) // the first request passes
						}
						b.Script(slices.Repeat([]stripetest.Fault{fault}, times)...)
						records := []sink.Record{usage(-5, 1), usage(-4, 10), usage(-3, 100)}
						outcomes := b.settle(t.Context(), t, records)

						require.Positive(t, b.Fired())
						require.Zero(t, b.Overlaps())
						if way == "increment" && fault.Answer == stripetest.Error500 && on != "GET" {
							requireOnce(t, records, outcomes, b.billed(customer))
							require.Equal(t, sink.InDoubt, outcomes[1], "the key answers 500 all day")
							return
						}
						require.Equal(t, slices.Repeat([]sink.Outcome{sink.Delivered}, 3), outcomes)
						require.EqualValues(t, 111, b.billed(customer))
					})
				}
			}
		}
	}
}

var _ = rand.N[int]
var _ = synctest.Wait

// requireOnce compares outcomes with a bill: what was delivered is on it, what is in
// doubt may be, nothing else is, and nothing twice. Quantities are powers of ten.
func requireOnce(t *testing.T, records []sink.Record, outcomes []sink.Outcome, billed int64) {
	t.Helper()
	for i, r := range records {
		times := billed / r.Quantity % 10
		switch outcomes[i] {
		case sink.Delivered:
			require.EqualValues(t, 1, times, "record %d of a bill of %d", i, billed)
		case sink.InDoubt:
			require.LessOrEqual(t, times, int64(1), "record %d of a bill of %d", i, billed)
		default:
			require.Zero(t, times, "record %d, %v, of a bill of %d", i, outcomes[i], billed)
		}
	}
}
