package stripesink_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const field = "skm_key_id"

func byLicense(c *stripesink.UsageRecordsConfig) { c.SubjectMetadata = field }

// license writes a subject into a subscription.
func (b *register) license(sub stripetest.Subscription, subject string) {
	b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata = map[string]string{field: subject} })
}

func TestSubjectsLeadToOneItem(t *testing.T) {
	t.Parallel()
	b := newRegister(t, byLicense)
	// Around the one to bill: another customer, another price, and what is over.
	b.subscribe("cus_2", "price_sum")
	other := b.subscribe("cus_3", "price_max", "price_sum", "price_last_ever")
	b.license(other, "KEY-1")
	gone := b.subscribe("cus_4", "price_sum")
	b.license(gone, "key-1")
	b.ChangeSubscription(gone.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
	sub := b.subscribe("cus_5", "price_max", "price_sum", "price_last_ever")
	b.license(sub, "key-1")

	for i, subject := range []string{"cus_5", sub.ID, sub.Items[1].ID, "key-1"} {
		r := usage(-10+i, 1)
		r.Subject = subject
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Delivered, outcome, "%s: %v", subject, err)
		require.EqualValues(t, i+1, b.Billed(sub.Items[1].ID, time.Now()))
	}
	// The index takes KEY-1 for key-1.
	r := usage(-5, 100)
	r.Subject = "KEY-1"
	outcome, err := b.deliver(t, r)
	require.Equal(t, sink.Delivered, outcome, "%v", err)
	require.EqualValues(t, 100, b.Billed(other.Items[1].ID, time.Now()))
}

func TestSubjectsThatLeadNowhere(t *testing.T) {
	t.Parallel()
	with := func(status string) func(*register) string {
		return func(b *register) string {
			sub := b.subscribe("cus_2", "price_sum")
			b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = status })
			return "cus_2"
		}
	}
	of := func(make func(b *register) stripetest.Subscription, subject func(stripetest.Subscription) string) func(*register) string {
		return func(b *register) string { return subject(make(b)) }
	}
	canceled := func(b *register) stripetest.Subscription {
		sub := b.subscribe("cus_2", "price_sum")
		return b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
	}
	wrongPrice := func(b *register) stripetest.Subscription { return b.subscribe("cus_2", "price_max") }
	itself := func(sub stripetest.Subscription) string { return sub.ID }
	item := func(sub stripetest.Subscription) string { return sub.Items[0].ID }
	is := func(subject string) func(*register) string { return func(*register) string { return subject } }

	tests := map[string]struct {
		subject func(*register) string
		want    error
		says    string
	}{
		"unknown customer":     {is("cus_x"), stripesink.ErrNotFound, `"cus_x" has no subscription item with price price_sum`},
		"unknown subscription": {is("sub_x"), stripesink.ErrNotFound, `"sub_x"`},
		"unknown item":         {is("si_x"), stripesink.ErrNotFound, `"si_x"`},
		"unknown license":      {is("key-x"), stripesink.ErrNotFound, `"key-x"`},
		"deleted customer": {func(b *register) string {
			b.ChangeCustomer(customer, func(c *stripetest.Customer) { c.Deleted = true })
			return customer
		}, stripesink.ErrNotFound, "its counts are kept"},
		"canceled":             {with("canceled"), stripesink.ErrNotFound, `"cus_2"`},
		"incomplete":           {with("incomplete"), stripesink.ErrNotFound, "is incomplete"},
		"paused":               {with("paused"), stripesink.ErrNotFound, "is paused"},
		"canceled, by its ID":  {of(canceled, itself), sink.ErrRejected, "is canceled"},
		"canceled, by an item": {of(canceled, item), sink.ErrRejected, "is canceled"},
		"of another price":     {of(wrongPrice, itself), stripesink.ErrNotFound, "price price_sum"},
		"another price's item": {of(wrongPrice, item), stripesink.ErrNotFound, "price price_sum"},
		"two subscriptions": {func(b *register) string {
			b.subscribe("cus_2", "price_sum")
			sub := b.AddSubscription(stripetest.Subscription{Customer: "cus_2", Items: []stripetest.Item{{ID: "si_second", Price: "price_sum"}}})
			return sub.Customer
		}, stripesink.ErrAmbiguous, "si_second"},
		"two licenses": {func(b *register) string {
			b.license(b.subscribe("cus_2", "price_sum"), "key-1")
			b.license(b.subscribe("cus_3", "price_sum"), "key-1")
			return "key-1"
		}, stripesink.ErrAmbiguous, "has subscription items"},
		"quote":     {is("a' OR status:'active"), sink.ErrRejected, "can't be searched for"},
		"backslash": {is(`a\`), sink.ErrRejected, "can't be searched for"},
		"empty":     {is(""), sink.ErrRejected, "can't be searched for"},
		"long":      {is(strings.Repeat("x", 201)), sink.ErrRejected, "can't be searched for"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRegister(t, byLicense)
			r := usage(-5, 1)
			r.Subject = test.subject(b)
			requests := b.Requests()
			outcome, err := b.deliver(t, r)
			require.ErrorIs(t, err, test.want)
			require.ErrorContains(t, err, test.says)
			require.Zero(t, b.RequestsTo(postUsage))
			if test.want == sink.ErrRejected {
				require.Equal(t, sink.Rejected, outcome)
				return
			}
			require.Equal(t, sink.Pending, outcome, "the count is kept")
			require.Equal(t, time.Minute, sink.RetryDelay(err))
			asked := b.Requests() - requests
			require.Positive(t, asked)
			_, again := b.deliver(t, r)
			require.ErrorIs(t, again, test.want)
			require.Equal(t, asked, b.Requests()-requests, "misses are remembered, too")
		})
	}
}

func TestStatusesThatAreBilled(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"active", "trialing", "past_due", "unpaid"} {
		b := newRegister(t, nil)
		sub := b.subscribe("cus_2", "price_sum")
		b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = status })
		r := usage(-5, 3)
		r.Subject = "cus_2"
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Delivered, outcome, "%s: %v", status, err)
	}
}

func TestSeveralPricesOfAFeature(t *testing.T) {
	t.Parallel()
	b := newRegister(t, func(c *stripesink.UsageRecordsConfig) {
		c.Prices = map[string][]string{feature: {"price_sum", "price_yearly"}}
	})
	b.AddPrice(stripetest.Price{ID: "price_yearly", Interval: "year"})
	b.subscribe("cus_2", "price_yearly")
	for _, subject := range []string{customer, "cus_2"} {
		r := usage(-5, 3)
		r.Subject = subject
		outcome, err := b.deliver(t, r)
		require.Equal(t, sink.Delivered, outcome, "%v", err)
		require.EqualValues(t, 3, b.billed(subject))
	}
}

// The period is read anew once it is over, and not before.
func TestPeriodsAreFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newRegister(t, byLicense)
		ends := time.Now().Add(20 * day)
		require.Zero(t, b.sink.NextEnd(time.Now()), "nobody is known yet")
		outcome, _ := b.deliver(t, usage(-5, 1))
		require.Equal(t, sink.Delivered, outcome)
		require.Equal(t, ends.Add(-15*time.Second).UTC(), b.sink.NextEnd(time.Now()))
		require.Equal(t, ends.UTC(), b.sink.NextEnd(ends.Add(-15*time.Second)))
		require.Equal(t, ends.UTC(), b.sink.NextEnd(ends.Add(-time.Nanosecond)))
		require.Zero(t, b.sink.NextEnd(ends))

		time.Sleep(20*day + 10*time.Minute)
		outcome, err := b.deliver(t, usage(-5, 1))
		require.Equal(t, sink.Rejected, outcome, "%v", err)
		time.Sleep(time.Hour)
		outcome, _ = b.deliver(t, usage(-5, 1))
		require.Equal(t, sink.Delivered, outcome)
		require.True(t, b.sink.NextEnd(time.Now()).After(ends))
	})
}

// An item that was replaced is noticed by what Stripe answers.
func TestReplacedItem(t *testing.T) {
	t.Parallel()
	for _, subject := range []func(stripetest.Subscription) string{
		func(sub stripetest.Subscription) string { return sub.Customer },
		func(sub stripetest.Subscription) string { return sub.ID },
		func(sub stripetest.Subscription) string { return sub.Items[0].ID },
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, nil)
			sub := b.subscribe("cus_2", "price_sum")
			r := usage(-5, 1)
			r.Subject = subject(sub)
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.Delivered, outcome)

			old := sub.Items[0].ID
			b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Items = []stripetest.Item{{ID: "si_new", Price: "price_sum"}} })
			time.Sleep(2 * time.Hour)
			next := usage(-5, 10)
			next.Subject = r.Subject
			outcome, err := b.deliver(t, next)
			require.Equal(t, sink.Pending, outcome, "%v", err)
			outcome, err = b.deliver(t, next)
			if r.Subject == old {
				require.ErrorIs(t, err, stripesink.ErrNotFound)
				return
			}
			require.Equal(t, sink.Delivered, outcome, "%v", err)
			require.EqualValues(t, 10, b.Billed("si_new", time.Now()))
		})
	}
}

// A subscription that is read again says whether it is still that of the license.
func TestLicenseThatHasLeftItsSubscription(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{0, time.Hour} {
		inBubble(t, lag.String(), func(t *testing.T) {
			b := newRegister(t, byLicense)
			old, next := b.subscribe("cus_2", "price_sum"), b.subscribe("cus_3", "price_sum")
			b.license(old, "key-1")
			time.Sleep(20*day - 2*time.Hour)
			r := usage(-5, 1)
			r.Subject = "key-1"
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.Delivered, outcome)

			time.Sleep(2*time.Hour + time.Minute) // known, but the period is over
			b.SearchLag = lag
			b.license(old, "")
			b.license(next, "key-1")
			time.Sleep(10 * time.Minute)
			r = usage(0, 10)
			r.ID, r.Subject = "02", "key-1"
			r.Start, r.End = time.Now().Add(-time.Minute), time.Now()
			outcome, err := b.deliver(t, r)
			if lag > 0 {
				require.ErrorIs(t, err, stripesink.ErrNotFound)
				outcome = b.settle(t.Context(), t, []sink.Record{r})[0]
			}
			require.Equal(t, sink.Delivered, outcome)
			require.Zero(t, b.billed("cus_2"))
			require.EqualValues(t, 10, b.billed("cus_3"))
		})
	}
}

// A customer who cancels may subscribe again.
func TestCanceledSubscription(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, nil)
			sub := b.subscribe("cus_2", "price_sum")
			r := usage(-5, 1)
			r.Subject = "cus_2"
			outcome, _ := b.deliver(t, r)
			require.Equal(t, sink.Delivered, outcome)
			b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
			if again {
				b.AddSubscription(stripetest.Subscription{Customer: "cus_2", Items: []stripetest.Item{{ID: "si_new", Price: "price_sum"}}})
			}
			time.Sleep(time.Hour)
			next := usage(-5, 10)
			next.Subject = r.Subject
			outcomes := b.settle(t.Context(), t, []sink.Record{next})
			if again {
				require.Equal(t, sink.Delivered, outcomes[0])
				require.EqualValues(t, 10, b.Billed("si_new", time.Now()))
			} else {
				require.Equal(t, sink.Rejected, outcomes[0])
			}
		})
	}
}

// What may stand on the old item must not be set on the new one, too.
func TestDoubtStaysWithItsItem(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		for _, restarted := range []bool{false, true} {
			inBubble(t, fmt.Sprint(way, restarted), func(t *testing.T) {
				b := newRegister(t, change)
				sub := b.subscribe("cus_2", "price_sum")
				r := usage(-5, 7)
				r.Subject = "cus_2"
				b.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: true, On: "usage_records"})
				outcome, _ := b.deliver(t, r)
				require.Equal(t, sink.InDoubt, outcome)

				b.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Items = []stripetest.Item{{ID: "si_new", Price: "price_sum"}} })
				time.Sleep(5 * time.Hour)
				if restarted {
					b.restart(t)
				}
				r.Attempt, r.Doubt = 2, true
				outcome, err := b.deliver(t, r)
				require.Equal(t, sink.Rejected, outcome)
				require.ErrorContains(t, err, "may be billed")
				require.Zero(t, b.Billed("si_new", time.Now()))
			})
		}
	}
}

// Two names of one customer would overwrite each other's records.
func TestOneNameForEachCustomer(t *testing.T) {
	t.Parallel()
	for way, change := range ways {
		synctest.Test(t, func(t *testing.T) {
			b := newRegister(t, change)
			first, second := usage(-5, 1), usage(-5, 10)
			second.ID, second.Subject = "02", b.items[customer]
			outcomes := b.settle(t.Context(), t, []sink.Record{first, second})
			if way == "increment" {
				require.EqualValues(t, 11, b.billed(customer))
				return
			}
			require.Equal(t, []sink.Outcome{sink.Delivered, sink.Rejected}, outcomes)
			require.EqualValues(t, 1, b.billed(customer))
		})
	}
}
