package stripesink_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

func TestVerifyFindsWhatWasRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r, before, after := lately(1, 7), lately(0, 5), lately(2, 9)
		time.Sleep(3 * time.Minute)
		a.recorded(t, before, r, after)
		time.Sleep(24 * time.Hour)
		for range 2 {
			outcome, err := a.sink.Verify(t.Context(), r, true)
			require.NoError(t, err)
			require.Equal(t, sink.Delivered, outcome)
		}
		require.Equal(t, 1, a.RequestsTo("GET /v1/billing/meters"), "meters are remembered")
	})
}

// Nothing is believed to be absent before Stripe has said so twice, hours apart.
func TestVerifyFindsWhatIsAbsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r, other := lately(1, 7), lately(1, 8)
		other.ID, other.Subject = "02", "cus_2"
		time.Sleep(3 * time.Minute)
		a.recorded(t, lately(0, 5), lately(2, 9), other)
		time.Sleep(24 * time.Hour)
		verify := func(want sink.Outcome) {
			outcome, err := a.sink.Verify(t.Context(), r, true)
			require.NoError(t, err)
			require.Equal(t, want, outcome)
		}
		verify(sink.InDoubt)
		time.Sleep(3*time.Hour - 1)
		verify(sink.InDoubt)
		time.Sleep(1)
		verify(sink.Pending)
		verify(sink.InDoubt) // asked anew, it begins anew
		r.ID += "-2"
		verify(sink.InDoubt)
	})
}

// What shows up after all, or only in part, is no proof of absence any more.
func TestVerifyForgetsAnAbsenceThatWasNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r := lately(1, 7)
		time.Sleep(24 * time.Hour)
		verify := func(want sink.Outcome) {
			outcome, err := a.sink.Verify(t.Context(), r, true)
			require.NoError(t, err)
			require.Equal(t, want, outcome)
		}
		verify(sink.InDoubt)
		stranger := r
		stranger.ID, stranger.Quantity = "99", 1
		a.recorded(t, stranger)
		time.Sleep(3 * time.Hour)
		verify(sink.InDoubt)
		require.NoError(t, a.sink.Void(t.Context(), stranger))
		verify(sink.InDoubt)
		time.Sleep(3 * time.Hour)
		verify(sink.Pending)
	})
}

func TestVerifyDoubtsWhatProvesNothing(t *testing.T) {
	t.Parallel()
	shift := func(start, end time.Duration) func(*sink.Record) {
		return func(r *sink.Record) { r.Start, r.End = r.Start.Add(start), r.End.Add(end) }
	}
	tests := map[string]struct {
		config   func(*stripesink.Config)
		meters   []stripetest.Meter
		record   func(*sink.Record)
		company  bool // the record is not alone
		requests bool // Stripe is asked
		want     sink.Outcome
	}{
		"proven":          {want: sink.Delivered, requests: true},
		"wider window":    {record: shift(-time.Hour, 0), want: sink.Delivered, requests: true},
		"company":         {company: true, want: sink.InDoubt},
		"other writers":   {config: func(c *stripesink.Config) { c.SoleWriter = false }, want: sink.InDoubt},
		"other instances": {record: func(r *sink.Record) { r.Instance = 1 }, want: sink.InDoubt},
		"shared meter": {
			config: func(c *stripesink.Config) { c.Meters["other"] = stripesink.Meter{EventName: event} }, want: sink.InDoubt,
		},
		"narrow window":      {record: shift(time.Second, 0), want: sink.InDoubt},
		"half into a minute": {record: shift(-30*time.Second, -30*time.Second), want: sink.InDoubt},
		"into the next":      {record: shift(0, time.Second), want: sink.InDoubt},
		"level":              {record: func(r *sink.Record) { r.Kind = sink.Last }, want: sink.InDoubt},
		"nothing":            {record: func(r *sink.Record) { r.Quantity = 0 }, want: sink.InDoubt},
		"too much to tell":   {record: func(r *sink.Record) { r.Quantity = 1<<53 + 1 }, want: sink.InDoubt},
		"last of all":        {meters: []stripetest.Meter{{EventName: event, Formula: "last"}}, want: sink.InDoubt, requests: true},
		"count":              {meters: []stripetest.Meter{{EventName: event, Formula: "count"}}, want: sink.InDoubt, requests: true},
		"hourly":             {meters: []stripetest.Meter{{EventName: event, TimeWindow: "hour"}}, want: sink.InDoubt, requests: true},
		"younger meter":      {record: shift(-25*time.Hour, -25*time.Hour), want: sink.InDoubt, requests: true},
		"less":               {record: func(r *sink.Record) { r.Quantity = 6 }, want: sink.InDoubt, requests: true},
		"more":               {record: func(r *sink.Record) { r.Quantity = 8 }, want: sink.InDoubt, requests: true},
	}
	for name, test := range tests {
		inBubble(t, name, func(t *testing.T) {
			a := newAccount(t, test.config, test.meters...)
			r := lately(100, 7)
			time.Sleep(103 * time.Minute)
			a.recorded(t, r)
			if test.record != nil {
				test.record(&r)
			}
			time.Sleep(24 * time.Hour)
			before := a.Requests()
			for range 2 { // nothing becomes Pending by waiting
				outcome, err := a.sink.Verify(t.Context(), r, !test.company)
				require.NoError(t, err)
				require.Equal(t, test.want, outcome)
				require.Equal(t, test.requests, a.Requests() > before)
				time.Sleep(4 * time.Hour)
			}
		})
	}
}

// Whether Stripe tells of the usage of an archived meter is not known.
func TestVerifyDoubtsAnArchivedMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil, stripetest.Meter{ID: "mtr_1", EventName: event})
		a.ChangeMeter("mtr_1", func(m *stripetest.Meter) { m.Status = "inactive" })
		for range 3 {
			outcome, err := a.sink.Verify(t.Context(), lately(0, 7), true)
			require.NoError(t, err)
			require.Equal(t, sink.InDoubt, outcome)
			time.Sleep(24 * time.Hour)
		}
	})
}

// What was seen before the last attempt says nothing about that.
func TestVerifyForgetsAnAbsenceOnceTheRecordIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.SummaryLag = 24 * time.Hour
		r := lately(1, 7)
		time.Sleep(time.Hour)
		verify := func(want sink.Outcome) {
			outcome, err := a.sink.Verify(t.Context(), r, true)
			require.NoError(t, err)
			require.Equal(t, want, outcome)
		}
		verify(sink.InDoubt)
		a.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "/meter_events"})
		r.Attempt = 2 // a person said that it is to be sent again
		require.Equal(t, sink.InDoubt, judge(a.sink.Deliver(t.Context(), []sink.Record{r}), 1)[0])
		time.Sleep(23 * time.Hour)
		verify(sink.InDoubt)
		time.Sleep(2 * time.Hour)
		verify(sink.Delivered)
	})
}

// A customer whom Stripe doesn't know says nothing, and is no reason not to ask about
// the next.
func TestVerifyDoubtsAnUnknownCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		r := lately(1, 7)
		r.Subject = "cus_typo"
		time.Sleep(24 * time.Hour)
		for range 3 {
			outcome, err := a.sink.Verify(t.Context(), r, true)
			require.NoError(t, err)
			require.Equal(t, sink.InDoubt, outcome)
			time.Sleep(4 * time.Hour)
		}
		_, err := a.sink.Usage(t.Context(), feature, r.Subject, r.Start, r.End)
		require.ErrorContains(t, err, "there is no such customer")
	})
}

// No failure to read may pass for "Stripe has nothing".
func TestVerifyFailsWithTheRead(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		if fault.Applied {
			continue
		}
		inBubble(t, fault.String(), func(t *testing.T) {
			a := newAccount(t, nil)
			r := lately(1, 7)
			time.Sleep(24 * time.Hour)
			for range 2 {
				fault.On = "event_summaries" // net/http itself asks a second time where a connection breaks
				a.Script(fault, fault)
				outcome, err := a.sink.Verify(t.Context(), r, true)
				require.Error(t, err)
				require.Equal(t, sink.InDoubt, outcome)
				time.Sleep(4 * time.Hour)
			}
			require.Positive(t, a.Fired())
		})
	}
}

func TestVerifyWithoutAMeterOrCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil, stripetest.Meter{EventName: "other"})
		outcome, err := a.sink.Verify(t.Context(), lately(1, 7), true)
		require.Equal(t, sink.InDoubt, outcome)
		require.ErrorContains(t, err, `no meter of event name "tax_report"`)
		r := lately(1, 7)
		r.Subject = "acme"
		outcome, err = a.sink.Verify(t.Context(), r, true)
		require.Equal(t, sink.InDoubt, outcome)
		require.ErrorContains(t, err, `"acme"`)
		r = lately(1, 7)
		r.Feature = "export"
		outcome, err = a.sink.Verify(t.Context(), r, true)
		require.Equal(t, sink.InDoubt, outcome)
		require.ErrorContains(t, err, `"export"`)
		outcome, err = stripesink.New(stripesink.Config{}).Verify(t.Context(), lately(1, 7), true)
		require.Equal(t, sink.InDoubt, outcome)
		require.ErrorContains(t, err, "Config.Key")
	})
}

// Whatever was recorded or lost, what Verify settles is billed once, and what it does
// not settle it leaves as it is.
func TestVerifyBillsOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		inBubble(t, fmt.Sprint(seed), func(t *testing.T) {
			a, random := newAccount(t, nil), rand.New(rand.NewPCG(seed, 0))
			a.SummaryLag = time.Duration(random.IntN(20)) * time.Hour
			var records []sink.Record
			var at time.Time
			for n := range 100 {
				r := lately(0, random.Int64N(100)+1)
				if n == 0 {
					at = r.Start
				}
				r.ID = fmt.Sprintf("01-r-%d", n)
				width := []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Second, 90 * time.Second}[random.IntN(4)]
				r.Start, r.End = at, at.Add(width)
				if random.IntN(5) > 0 { // else the next is of the same window, but for its dimensions
					at = r.End
				}
				if random.IntN(2) == 0 {
					at = at.Add(time.Minute - 1).Truncate(time.Minute)
				}
				records = append(records, r)
			}
			time.Sleep(10 * time.Hour)
			var want int64
			recorded := map[string]bool{}
			for _, r := range records {
				if recorded[r.ID] = random.IntN(2) == 0; recorded[r.ID] {
					a.recorded(t, r)
				}
			}
			time.Sleep(24 * time.Hour)
			settled := map[sink.Outcome]int{}
			for range 3 {
				for i, r := range records {
					alone := true
					for j, other := range records {
						alone = alone && (i == j || !other.Start.Before(r.End) || !r.Start.Before(other.End))
					}
					outcome, err := a.sink.Verify(t.Context(), r, alone)
					require.NoError(t, err)
					settled[outcome]++
					switch {
					case outcome == sink.Delivered:
						require.True(t, recorded[r.ID], "%+v", r)
					case outcome == sink.Pending:
						require.False(t, recorded[r.ID], "%+v", r)
						recorded[r.ID] = true
						r.ID += "-2"
						a.recorded(t, r)
					}
				}
				time.Sleep(3*time.Hour + a.SummaryLag)
			}
			for _, r := range records {
				if recorded[r.ID] {
					want += r.Quantity
				}
			}
			require.Equal(t, want, a.Total(customer, event))
			require.Len(t, settled, 3, "each answer was given")
		})
	}
}
