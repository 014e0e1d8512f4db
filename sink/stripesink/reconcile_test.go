package stripesink_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// books are records with their outcomes, as a ledger has them.
type books []struct {
	sink.Record
	outcome sink.Outcome
}

func (b *books) add(outcome sink.Outcome, records ...sink.Record) {
	for _, r := range records {
		*b = append(*b, struct {
			sink.Record
			outcome sink.Outcome
		}{r, outcome})
	}
}

func (b *books) all() iter.Seq2[sink.Record, sink.Outcome] {
	return func(yield func(sink.Record, sink.Outcome) bool) {
		for _, one := range *b {
			if !yield(one.Record, one.outcome) {
				return
			}
		}
	}
}

// of changes whose record it is, and what it counts.
func of(r sink.Record, subject, feature string) sink.Record {
	r.ID, r.Subject, r.Feature = r.ID+"-"+subject+"-"+feature, subject, feature
	r.ID = strings.NewReplacer("_", "-").Replace(r.ID)
	return r
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripesink.Config) {
			c.Meters["export"] = stripesink.Meter{EventName: "export"}
			c.Meters["import"] = stripesink.Meter{EventName: "export"} // one meter for both
		}, stripetest.Meter{EventName: event}, stripetest.Meter{EventName: "export"})
		midnight := lately(0, 1).Start
		time.Sleep(time.Hour)
		var b books
		sent := []sink.Record{
			lately(0, 1), lately(1, 2), lately(2, 4),
			of(lately(0, 10), customer, "export"), of(lately(1, 20), customer, "import"),
			of(lately(0, 100), "cus_2", "export"),
		}
		a.recorded(t, sent...)
		b.add(sink.Delivered, sent...)

		// What is in doubt was recorded; what was delivered was lost; what is rejected is not there.
		doubtful := of(lately(3, 1000), "cus_2", feature)
		a.recorded(t, doubtful)
		b.add(sink.InDoubt, doubtful)
		b.add(sink.Rejected, of(lately(4, 3000), "cus_2", feature))
		b.add(sink.Pending, of(lately(5, 5000), "cus_2", feature))
		b.add(sink.Attempted, of(lately(6, 7000), "cus_2", feature))
		b.add(sink.Delivered, of(lately(7, 400), "cus_2", "export"))
		voided := of(lately(8, 50), "cus_2", "export")
		a.recorded(t, voided)
		b.add(sink.Voided, voided)
		b.add(sink.Superseded, of(lately(8, 99), "cus_2", "export"))

		// Outside of the hour.
		b.add(sink.Delivered, lately(-1, 1), lately(60, 1), lately(-600, 1), of(lately(-1, 1), "cus_3", feature), of(lately(60, 1), "cus_4", feature))

		// Who can't be asked for.
		b.add(sink.Delivered, of(lately(0, 8), "acme", feature))
		b.add(sink.Pending, of(lately(0, 9), customer, "print"), of(lately(0, 5), customer, "scan"))

		got, err := a.sink.Reconcile(t.Context(), b.all(), midnight, midnight.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, midnight, got.Start)
		require.Equal(t, midnight.Add(time.Hour), got.End)
		require.Len(t, got.Lines, 7)
		for i, want := range []stripesink.ReconcileLine{
			{Feature: "export", Subject: "cus_2", Delivered: 500, Voided: 50, Billed: 150, Difference: -350},
			{Feature: "export, import", Subject: customer, Delivered: 30, Billed: 30},
			{Feature: "print", Subject: customer, Open: 9},
			{Feature: "scan", Subject: customer, Open: 5},
			{Feature: feature, Subject: "acme", Delivered: 8},
			{Feature: feature, Subject: customer, Delivered: 7, Billed: 7},
			{Feature: feature, Subject: "cus_2", Open: 16000, Billed: 1000, Difference: 1000},
		} {
			line := got.Lines[i]
			line.Err = nil
			want.Start, want.End = got.Start, got.End
			require.Equal(t, want, line)
		}
		require.ErrorContains(t, got.Lines[2].Err, `no Stripe meter for feature "print"`)
		require.ErrorContains(t, got.Lines[3].Err, `no Stripe meter for feature "scan"`)
		require.ErrorContains(t, got.Lines[4].Err, `subject "acme"`)
		require.Equal(t, slices.Concat(got.Lines[:1], got.Lines[2:5], got.Lines[6:]), got.Differences())
		require.Equal(t, 4, a.RequestsTo("GET /v1/billing/meters/{id}/event_summaries"))
	})
}

// One whose total can't be read is a line with an error, and no other's.
func TestReconcileGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		if fault.Applied {
			continue
		}
		inBubble(t, fault.String(), func(t *testing.T) {
			a := newAccount(t, nil)
			a.AddCustomer(stripetest.Customer{ID: "cus_3"})
			midnight := lately(0, 1).Start
			time.Sleep(time.Hour)
			var b books
			b.add(sink.Delivered, lately(0, 7), of(lately(0, 7), "cus_2", feature), of(lately(0, 7), "cus_3", feature))
			for _, one := range b {
				a.recorded(t, one.Record)
			}
			fault.On = "event_summaries"
			a.Script(stripetest.Fault{On: fault.On}, fault)
			if fault.Answer == stripetest.Drop { // which net/http tries a second time
				a.Script(fault)
			}
			got, err := a.sink.Reconcile(t.Context(), b.all(), midnight, midnight.Add(time.Hour))
			require.NoError(t, err)
			require.Len(t, got.Lines, 3)
			for i, line := range got.Lines {
				require.Equal(t, i == 1, line.Err != nil, "%v", line.Err)
				require.Zero(t, line.Difference)
			}
			require.Equal(t, got.Lines[1:2], got.Differences())
			require.Zero(t, got.Lines[1].Billed)
			require.Contains(t, got.String(), "cus_2    7         0     0       ?       ? stripesink: reading")
			require.Positive(t, a.Fired())
		})
	}
}

func TestReconcileFailsWithTheListOfMeters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		a.Script(stripetest.Fault{Answer: stripetest.Error500})
		var b books
		b.add(sink.Delivered, lately(0, 7))
		got, err := a.sink.Reconcile(t.Context(), b.all(), lately(0, 1).Start, lately(1, 1).Start)
		require.ErrorContains(t, err, "listing the billing meters")
		require.Empty(t, got.Lines)
		_, err = a.sink.Reconcile(t.Context(), b.all(), lately(0, 1).Start, lately(0, 1).Start)
		require.ErrorContains(t, err, "end must be after start")
		_, err = stripesink.New(stripesink.Config{}).Reconcile(t.Context(), b.all(), lately(0, 1).Start, lately(1, 1).Start)
		require.ErrorContains(t, err, "Config.Key")
	})
}

// It leaves Stripe's limits to those who bill, and ends with its context.
func TestReconcileKeepsItsPace(t *testing.T) {
	t.Parallel()
	for key, perSecond := range map[string]int{testKey: 4, "sk_live_canary4711": 10} {
		inBubble(t, key[:7], func(t *testing.T) {
			a := newAccount(t, func(c *stripesink.Config) { c.Key = key })
			a.Key = key
			midnight := lately(0, 1).Start
			var b books
			for n := range 101 {
				id := fmt.Sprintf("cus_n%d", n)
				a.AddCustomer(stripetest.Customer{ID: id})
				b.add(sink.Delivered, of(lately(0, 7), id, feature))
			}
			began := time.Now()
			got, err := a.sink.Reconcile(t.Context(), b.all(), midnight, midnight.Add(time.Hour))
			require.NoError(t, err)
			require.Len(t, got.Differences(), 101)
			require.InDelta(t, 100/float64(perSecond), time.Since(began).Seconds(), 0.1)

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second+10*time.Millisecond)
			defer cancel()
			got, err = a.sink.Reconcile(ctx, b.all(), midnight, midnight.Add(time.Hour))
			require.Error(t, err)
			require.Len(t, got.Lines, 101, "what was not read says so")
			read := 0
			for _, line := range got.Lines {
				if line.Err == nil {
					read++
				}
			}
			require.InDelta(t, 5*perSecond, read, 2)
			require.ErrorContains(t, got.Lines[100].Err, "not read")
		})
	}
}

// Whatever a meter does with its events, the ledger's records are combined alike.
func TestReconcileCombinesAsTheMeterDoes(t *testing.T) {
	t.Parallel()
	for _, formula := range []string{"sum", "last", "count"} {
		for _, window := range []string{"", "hour", "day"} {
			inBubble(t, formula+" "+window, func(t *testing.T) {
				a := newAccount(t, nil, stripetest.Meter{EventName: event, Formula: formula, TimeWindow: window})
				random := rand.New(rand.NewPCG(uint64(len(formula)), uint64(len(window))))
				midnight := lately(0, 1).Start
				time.Sleep(72 * time.Hour)
				var b books
				for n := 0; n < 72*60; n += random.IntN(90) + 1 {
					r := lately(n, random.Int64N(1000)+1)
					r.Start, r.End = r.Start.Add(-72*time.Hour), r.End.Add(-72*time.Hour)
					a.recorded(t, r)
					b.add(sink.Delivered, r)
				}
				random.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
				got, err := a.sink.Reconcile(t.Context(), b.all(), midnight, midnight.Add(72*time.Hour))
				require.NoError(t, err)
				require.Len(t, got.Lines, 1)
				if formula == "count" {
					require.ErrorContains(t, got.Lines[0].Err, `formula "count"`)
					return
				}
				require.NoError(t, got.Lines[0].Err)
				require.Positive(t, got.Lines[0].Delivered)
				require.Zero(t, got.Lines[0].Difference)
				require.Equal(t, a.Total(customer, event), got.Lines[0].Billed)
			})
		}
	}
}

// A subject that leads to a customer is compared as that customer.
func TestReconcileOfSubjectsThatAreLookedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, func(c *stripesink.Config) { c.SubjectMetadata = "key_id" })
		a.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
		for _, key := range []string{"k1", "k2"} {
			a.AddSubscription(stripetest.Subscription{
				Customer: customer, Items: []stripetest.Item{{Price: "price_1"}}, Metadata: map[string]string{"key_id": key},
			})
		}
		midnight := lately(0, 1).Start
		time.Sleep(time.Hour)
		var b books
		b.add(sink.Delivered, of(lately(0, 1), "k1", feature), of(lately(1, 10), "k2", feature), of(lately(2, 100), customer, feature))
		for _, one := range b {
			a.recorded(t, one.Record)
		}
		b.add(sink.Pending, of(lately(3, 1000), "k3", feature))
		got, err := a.sink.Reconcile(t.Context(), b.all(), midnight, midnight.Add(time.Hour))
		require.NoError(t, err)
		require.Len(t, got.Lines, 2)
		require.Equal(t, customer, got.Lines[0].Subject)
		require.EqualValues(t, 111, got.Lines[0].Billed)
		require.Zero(t, got.Lines[0].Difference)
		require.Equal(t, "k3", got.Lines[1].Subject)
		require.ErrorIs(t, got.Lines[1].Err, stripesink.ErrNotFound)
		require.EqualValues(t, 1000, got.Lines[1].Open)

		total, err := a.sink.Usage(t.Context(), feature, "k1", midnight, midnight.Add(time.Hour))
		require.NoError(t, err)
		require.EqualValues(t, 111, total)
		outcome, err := a.sink.Verify(t.Context(), lately(2, 100), true)
		require.NoError(t, err)
		require.Equal(t, sink.InDoubt, outcome, "several subjects may lead to one customer")
	})
}

// Records that come once only would make all that Stripe has a difference.
func TestReconcileNoticesRecordsThatComeOnceOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		calls := 0
		once := func(yield func(sink.Record, sink.Outcome) bool) {
			if calls++; calls == 1 {
				yield(lately(0, 7), sink.Delivered)
			}
		}
		_, err := a.sink.Reconcile(t.Context(), once, lately(0, 1).Start, lately(1, 1).Start)
		require.ErrorContains(t, err, "only once")
	})
}

func TestReconcileStaysAtTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		var b books
		b.add(sink.Rejected, lately(0, math.MaxInt64), lately(1, math.MaxInt64))
		got, err := a.sink.Reconcile(t.Context(), b.all(), lately(0, 1).Start, lately(9, 1).Start)
		require.NoError(t, err)
		require.EqualValues(t, math.MaxInt64, got.Lines[0].Open)
	})
}

func TestReconcileNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, nil)
		got, err := a.sink.Reconcile(t.Context(), (&books{}).all(), lately(0, 1).Start, lately(1, 1).Start)
		require.NoError(t, err)
		require.Empty(t, got.Lines)
		require.Empty(t, got.Differences())
		require.Contains(t, got.String(), "0 of 0 differ")
	})
}

// A table stays one whatever stands in it.
func TestReconciliationIsATable(t *testing.T) {
	t.Parallel()
	table := stripesink.Reconciliation{
		Start: start, End: start.Add(time.Hour),
		Lines: []stripesink.ReconcileLine{
			{Feature: "a\tb\nc", Start: start, End: start.Add(time.Hour), Subject: "cus_1\x1b[2J", Delivered: 1, Billed: 1},
			{Feature: "d", Start: start, End: start.Add(time.Hour), Subject: "cus_2", Err: fmt.Errorf("first\nsecond " + testKey)},
		},
	}.String()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	require.Len(t, lines, 5)
	require.True(t, strings.HasPrefix(lines[2], "a b c    cus_1 [2J  1         0     0       1       +0"), lines[2])
	require.Contains(t, lines[3], "? first second [key]")
	require.NotContains(t, table, "period")
	require.False(t, slices.ContainsFunc([]rune(table), func(r rune) bool { return r < ' ' && r != '\n' }))
}

func TestReconciliationShowsPeriodsThatDiffer(t *testing.T) {
	t.Parallel()
	end := start.Add(time.Hour)
	for _, shift := range [][2]time.Duration{{-time.Hour, 0}, {0, time.Hour}} {
		r := stripesink.Reconciliation{Start: start, End: end, Lines: []stripesink.ReconcileLine{
			{Feature: "a", Subject: "si_1", Start: start.Add(shift[0]), End: end.Add(shift[1])},
			{Feature: "a", Subject: "si_2", Start: start, End: end.Add(7 * time.Second)},
		}}
		require.Contains(t, r.String(), "period")
		require.Contains(t, r.String(), "[2026-03-01 12:00:00, 2026-03-01 13:00:07)")
		r.Lines = r.Lines[:1]
		require.Contains(t, r.String(), "period")
	}
}
