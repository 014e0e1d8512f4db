package stripesink_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// Each item is compared for the whole of its own period, whatever part is asked for.
func TestReconcileUsageRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
			c.Prices["seats"] = []string{"price_last_during_period"}
			c.Prices["peak"] = []string{"price_max"}
		})
		b.subscribe("cus_2", "price_sum", "price_last_during_period", "price_max")
		var l books
		add := func(outcome sink.Outcome, n int, quantity int64, kind sink.Kind, subject, feature string) {
			r := of(usage(n, quantity), subject, feature)
			r.Kind = kind
			if outcome == sink.Delivered {
				require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
			}
			l.add(outcome, r)
		}
		add(sink.Delivered, -60, 5, sink.Sum, customer, feature)
		add(sink.Delivered, -9*24*60, 50, sink.Sum, customer, feature) // of the same period
		add(sink.Delivered, -50, 7, sink.Sum, "cus_2", feature)
		add(sink.Rejected, -49, 70, sink.Sum, "cus_2", feature)
		add(sink.Delivered, -50, 30, sink.Last, "cus_2", "seats")
		add(sink.Delivered, -40, 20, sink.Last, "cus_2", "seats")
		add(sink.Delivered, -50, 300, sink.Max, "cus_2", "peak")
		add(sink.Delivered, -40, 200, sink.Max, "cus_2", "peak")
		add(sink.Pending, -30, 1, sink.Sum, "cus_3", feature)
		add(sink.Pending, -30, 2, sink.Sum, customer, "print")
		lost := of(usage(-20, 1000), customer, feature)
		l.add(sink.Delivered, lost)                                                         // Stripe has not got it
		l.add(sink.Delivered, of(usage(-11*24*60, 9), customer, feature))                   // of the period before
		l.add(sink.Delivered, of(usage(-3*60, 9), "cus_2", "unused in the time asked for")) // nobody asks

		end := time.Now()
		got, err := b.sink.Reconcile(t.Context(), l.all(), end.Add(-2*time.Hour), end)
		require.NoError(t, err)
		began, ends := end.AddDate(0, 0, -10), end.AddDate(0, 0, 20)
		require.Len(t, got.Lines, 6)
		for i, want := range []stripesink.ReconcileLine{
			{Feature: "peak", Subject: "cus_2", Start: began, End: ends, Delivered: 300, Billed: 300},
			{Feature: "print", Subject: customer, Start: got.Start, End: got.End, Open: 2},
			{Feature: "seats", Subject: "cus_2", Start: began, End: ends, Delivered: 20, Billed: 20},
			{Feature: feature, Subject: customer, Start: began, End: ends, Delivered: 1055, Billed: 55, Difference: -1000},
			{Feature: feature, Subject: "cus_2", Start: began, End: ends, Delivered: 7, Open: 70, Billed: 7},
			{Feature: feature, Subject: "cus_3", Start: got.Start, End: got.End, Open: 1},
		} {
			line := got.Lines[i]
			line.Err = nil
			require.True(t, want.Start.Equal(line.Start) && want.End.Equal(line.End), "%v", line)
			want.Start, want.End = line.Start, line.End
			require.Equal(t, want, line)
		}
		require.ErrorContains(t, got.Lines[1].Err, `no Stripe price for feature "print"`)
		require.ErrorIs(t, got.Lines[5].Err, stripesink.ErrNotFound)
		require.Contains(t, got.String(), "period")
		require.Contains(t, got.String(), "[1999-12-22 00:00, 2000-01-21 00:00)")
	})
}

func TestReconcileUsageRecordsOfAPeriodThatIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		r := usage(-60, 5)
		require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
		var l books
		l.add(sink.Delivered, r)
		asked := time.Now()
		time.Sleep(25 * 24 * time.Hour) // into the next period
		next := usage(-60, 7)
		next.ID = "02"
		b.restart(t)
		require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{next}))
		l.add(sink.Delivered, next)

		reconcile := func(start, end time.Time) stripesink.ReconcileLine {
			got, err := b.sink.Reconcile(t.Context(), l.all(), start, end)
			require.NoError(t, err)
			require.Len(t, got.Lines, 1)
			return got.Lines[0]
		}
		line := reconcile(asked.Add(-2*time.Hour), asked)
		require.NoError(t, line.Err)
		require.EqualValues(t, 5, line.Billed)
		require.Zero(t, line.Difference)
		require.True(t, line.End.Equal(asked.AddDate(0, 0, 20)))

		line = reconcile(time.Now().Add(-2*time.Hour), time.Now())
		require.NoError(t, line.Err)
		require.EqualValues(t, 7, line.Billed)
		require.Zero(t, line.Difference)
		require.True(t, line.Start.Equal(asked.AddDate(0, 0, 20)))

		line = reconcile(asked.Add(-2*time.Hour), time.Now())
		require.ErrorContains(t, line.Err, "ask for usage of one period")
		line = reconcile(time.Now().Add(-2*time.Hour), time.Now().AddDate(0, 1, 0))
		require.ErrorContains(t, line.Err, "ask for usage of one period")
		line = reconcile(asked.AddDate(-1, 0, 0), asked)
		require.ErrorContains(t, line.Err, "ask for usage of one period")
	})
}

// Before its first period an item has none, and Stripe need not list one without usage.
func TestReconcileUsageRecordsOfNoPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		var l books
		l.add(sink.Pending, usage(-11*24*60, 5))
		got, err := b.sink.Reconcile(t.Context(), l.all(), time.Now().AddDate(0, 0, -12), time.Now().AddDate(0, 0, -10))
		require.NoError(t, err)
		require.ErrorContains(t, got.Lines[0].Err, "no billing period that holds the whole of")

		_, err = b.sink.Reconcile(t.Context(), l.all(), time.Now(), time.Now())
		require.ErrorContains(t, err, "end must be after start")
		_, err = stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{}).Reconcile(t.Context(), l.all(), time.Now(), time.Now())
		require.ErrorContains(t, err, "UsageRecordsConfig.Key")
	})
}

// A record is where its second is, not where its window ends.
func TestReconcileUsageRecordsGoesBySeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, nil)
		r := usage(-90, 7)
		r.End = r.Start.Add(time.Hour)
		var l books
		l.add(sink.Delivered, r)
		got, err := b.sink.Reconcile(t.Context(), l.all(), r.Start.Add(time.Minute), time.Now())
		require.NoError(t, err)
		require.Empty(t, got.Lines)
		got, err = b.sink.Reconcile(t.Context(), l.all(), r.Start, r.Start.Add(time.Minute))
		require.NoError(t, err)
		require.Len(t, got.Lines, 1)
		require.EqualValues(t, -7, got.Lines[0].Difference)
	})
}

// Of the running period Stripe may leave out the bounds, or, without usage, all.
func TestReconcileUsageRecordsOfTheRunningPeriod(t *testing.T) {
	t.Parallel()
	const past = `{"id":"sis_0","total_usage":9,"period":{"start":900000000,"end":910000000}}`
	for name, test := range map[string]struct {
		data   string
		billed int64
	}{
		"not listed":     {"", 0},
		"only past ones": {past, 0},
		"no bounds":      {`{"id":"sis_1","total_usage":5,"period":{"start":null,"end":null}},` + past, 5},
		"no period":      {`null,{"id":"sis_1","total_usage":5},` + past, 5},
		"no start":       {`{"id":"sis_1","total_usage":5,"period":{"start":null,"end":948412800}},` + past, 5},
		"no end":         {`{"id":"sis_1","total_usage":5,"period":{"start":944000000,"end":null}},` + past, 5},
	} {
		inBubble(t, name, func(t *testing.T) {
			b := newRegister(t, nil)
			through := b.client.Transport
			b.client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/usage_record_summaries") {
					return reply(r, 200, `{"object":"list","has_more":false,"data":[`+test.data+`]}`), nil
				}
				return through.RoundTrip(r)
			})}
			b.restart(t)
			var l books
			l.add(sink.Delivered, usage(-9, 5))
			got, err := b.sink.Reconcile(t.Context(), l.all(), time.Now().Add(-time.Hour), time.Now())
			require.NoError(t, err)
			require.NoError(t, got.Lines[0].Err)
			require.Equal(t, test.billed, got.Lines[0].Billed)
			require.Equal(t, test.billed-5, got.Lines[0].Difference)
			require.WithinDuration(t, time.Now().AddDate(0, 0, -10), got.Lines[0].Start, time.Second)
			require.WithinDuration(t, time.Now().AddDate(0, 0, 20), got.Lines[0].End, time.Second)
		})
	}
}

// Subjects and features that meet at one item are compared with its total together.
func TestReconcileUsageRecordsOfASharedItem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
			c.Increment = true
			c.Prices["export"] = []string{"price_sum"}
		})
		item := b.items[customer]
		var l books
		for i, r := range []sink.Record{
			of(usage(-9, 1), customer, feature), of(usage(-8, 10), customer, "export"), of(usage(-7, 100), item, feature),
		} {
			r.ID = fmt.Sprintf("01-%d", i)
			require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
			l.add(sink.Delivered, r)
		}
		got, err := b.sink.Reconcile(t.Context(), l.all(), time.Now().Add(-time.Hour), time.Now())
		require.NoError(t, err)
		require.Len(t, got.Lines, 1)
		require.NoError(t, got.Lines[0].Err)
		require.Equal(t, "export, "+feature, got.Lines[0].Feature)
		require.Equal(t, customer+", "+item, got.Lines[0].Subject)
		require.EqualValues(t, 111, got.Lines[0].Billed)
		require.Zero(t, got.Lines[0].Difference)
	})
}

func TestReconcileUsageRecordsGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	for _, fault := range everyFault {
		if fault.Applied {
			continue
		}
		inBubble(t, fault.String(), func(t *testing.T) {
			b := newRegister(t, nil)
			var l books
			for n := range 3 {
				id := fmt.Sprintf("cus_n%d", n)
				b.subscribe(id, "price_sum")
				r := of(usage(-9, 7), id, feature)
				require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
				l.add(sink.Delivered, r)
			}
			fault.On = "usage_record_summaries"
			b.Script(stripetest.Fault{On: fault.On}, fault)
			if fault.Answer == stripetest.Drop { // which net/http tries a second time
				b.Script(fault)
			}
			got, err := b.sink.Reconcile(t.Context(), l.all(), time.Now().Add(-time.Hour), time.Now())
			require.NoError(t, err)
			require.Len(t, got.Lines, 3)
			for i, line := range got.Lines {
				require.Equal(t, i == 1, line.Err != nil, "%v", line.Err)
			}
			require.Positive(t, b.Fired())
		})
	}
}

// It leaves half of the lookups to deliveries, and ends with its context.
func TestReconcileUsageRecordsKeepsItsPace(t *testing.T) {
	t.Parallel()
	for key, perSecond := range map[string]int{testKey: 1, "sk_live_canary4711": 5} {
		inBubble(t, key[:7], func(t *testing.T) {
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Key = key })
			b.Key = key
			var l books
			for n := range 51 {
				id := fmt.Sprintf("cus_n%d", n)
				b.subscribe(id, "price_sum")
				l.add(sink.Delivered, of(usage(-9, 7), id, feature))
			}
			began := time.Now()
			got, err := b.sink.Reconcile(t.Context(), l.all(), began.Add(-time.Hour), began)
			require.NoError(t, err)
			require.Len(t, got.Differences(), 51)
			require.InDelta(t, 50/float64(perSecond), time.Since(began).Seconds(), 0.1)

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second+10*time.Millisecond)
			defer cancel()
			got, err = b.sink.Reconcile(ctx, l.all(), began.Add(-time.Hour), began)
			require.Error(t, err)
			require.Len(t, got.Lines, 51, "what was not read says so")
			read := 0
			for _, line := range got.Lines {
				if line.Err == nil {
					read++
				} else {
					require.ErrorContains(t, line.Err, "not read")
				}
			}
			require.InDelta(t, 5*perSecond, read, 2)
		})
	}
}

// Whatever is used and lost, the difference is what was lost.
func TestReconcileUsageRecordsFindsWhatWasLost(t *testing.T) {
	t.Parallel()
	kinds := map[string]sink.Kind{"price_sum": sink.Sum, "price_max": sink.Max, "price_last_during_period": sink.Last}
	for price, kind := range kinds {
		inBubble(t, price, func(t *testing.T) {
			b := newRegister(t, func(c *stripesink.UsageRecordsConfig) { c.Prices[feature] = []string{price} })
			b.subscribe("cus_2", price)
			random := rand.New(rand.NewPCG(uint64(kind), 0))
			var l books
			for n := -9 * 24 * 60; n < -10; n += random.IntN(60) + 1 {
				r := of(usage(n, random.Int64N(1000)+1), "cus_2", feature)
				r.Kind, r.ID = kind, fmt.Sprintf("01-%d", n+100_000)
				require.NoError(t, b.sink.Deliver(t.Context(), []sink.Record{r}))
				l.add(sink.Delivered, r)
			}
			random.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
			got, err := b.sink.Reconcile(t.Context(), l.all(), time.Now().Add(-24*time.Hour), time.Now())
			require.NoError(t, err)
			require.Len(t, got.Lines, 1)
			require.NoError(t, got.Lines[0].Err)
			require.Positive(t, got.Lines[0].Billed)
			require.Zero(t, got.Lines[0].Difference)
		})
	}
}
