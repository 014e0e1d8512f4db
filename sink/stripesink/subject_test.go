package stripesink_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// licensed is a sink of meter events whose subjects are licenses.
func licensed(t *testing.T) (*stripetest.Server, *stripesink.Sink) {
	t.Helper()
	server := stripetest.New(stripetest.Meter{ID: "mtr_1", EventName: event})
	server.Key = testKey
	server.AddPrice(stripetest.Price{ID: "price_1", Meter: "mtr_1"})
	client, stop := server.Pipe()
	t.Cleanup(stop)
	s := stripesink.New(config(func(c *stripesink.Config) {
		c.BaseURL, c.HTTPClient, c.SubjectMetadata, c.SoleWriter = stripetest.URL, client, field, true
	}))
	require.NoError(t, s.Validate())
	return server, s
}

func subscribeLicense(server *stripetest.Server, customer, license string) stripetest.Subscription {
	server.AddCustomer(stripetest.Customer{ID: customer})
	return server.AddSubscription(stripetest.Subscription{
		Customer: customer, Items: []stripetest.Item{{Price: "price_1"}}, Metadata: map[string]string{field: license},
	})
}

func TestEventsOfALicenseBillItsCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		sub := subscribeLicense(server, "cus_a", "key-1")
		subscribeLicense(server, "cus_b", "key-2")
		var records []sink.Record
		for i, subject := range []string{"cus_a", sub.ID, sub.Items[0].ID, "key-1", "key-1"} {
			r := usage(-10+i, 1)
			r.Subject = subject
			records = append(records, r)
		}
		require.NoError(t, s.Deliver(t.Context(), records))
		require.EqualValues(t, 5, server.Total("cus_a", event))
		require.Zero(t, server.Total("cus_b", event))
		require.Zero(t, server.Unbilled())
		require.Equal(t, len(records)+4, server.Requests(), "an item needs two reads, the rest one or none")

		total, err := s.Usage(t.Context(), feature, "key-1", time.Now().Add(-time.Hour), time.Now())
		require.NoError(t, err)
		require.EqualValues(t, 5, total)
	})
}

func TestReconcileByCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		subscribeLicense(server, "cus_a", "key-1")
		outcomes := map[string]sink.Outcome{"key-1": sink.Delivered, "cus_a": sink.Delivered, "key-2": sink.Pending}
		var records []sink.Record
		for subject := range outcomes {
			r := usage(-10, 3)
			r.ID, r.Subject = subject, subject
			records = append(records, r)
		}
		err := s.Deliver(t.Context(), records)
		require.Error(t, err)
		got, err := s.Reconcile(t.Context(), func(yield func(sink.Record, sink.Outcome) bool) {
			for _, r := range records {
				if !yield(r, outcomes[r.Subject]) {
					return
				}
			}
		}, time.Now().Add(-time.Hour), time.Now())
		require.NoError(t, err)
		require.Len(t, got.Lines, 2)
		require.Equal(t, "cus_a", got.Lines[0].Subject)
		require.EqualValues(t, 6, got.Lines[0].Delivered)
		require.EqualValues(t, 6, got.Lines[0].Billed)
		require.ErrorIs(t, got.Lines[1].Err, stripesink.ErrNotFound)
	})
}

func TestLicensesThatBillNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		subscribeLicense(server, "cus_a", "key-1")
		subscribeLicense(server, "cus_b", "key-1")
		over := subscribeLicense(server, "cus_c", "key-3")
		server.ChangeSubscription(over.ID, func(s *stripetest.Subscription) { s.Status = "canceled" })
		for subject, want := range map[string]error{
			"key-1": stripesink.ErrAmbiguous, "key-2": stripesink.ErrNotFound, "key-3": stripesink.ErrNotFound,
			over.ID: sink.ErrRejected, "a'b": sink.ErrRejected, "": sink.ErrRejected,
		} {
			r := usage(-10, 3)
			r.Subject = subject
			require.ErrorIs(t, s.Deliver(t.Context(), []sink.Record{r}), want, subject)
		}
		require.Empty(t, server.Events())
	})
}

// A license with two subscriptions of one customer is not ambiguous.
func TestOneCustomerWithTwoSubscriptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		sub := subscribeLicense(server, "cus_a", "key-1")
		server.AddSubscription(stripetest.Subscription{
			Customer: "cus_a", Items: []stripetest.Item{{Price: "price_1"}}, Metadata: sub.Metadata,
		})
		r := usage(-10, 3)
		r.Subject = "key-1"
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
		require.EqualValues(t, 3, server.Total("cus_a", event))
	})
}

// Whether Stripe knows an identifier again for another customer is not known.
func TestDoubtStaysWithItsCustomer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		sub := subscribeLicense(server, "cus_a", "key-1")
		r := usage(-10, 3)
		r.Subject = "key-1"
		server.Script(stripetest.Fault{Answer: stripetest.Drop, On: "meter_events"})
		require.Equal(t, sink.InDoubt, judge(s.Deliver(t.Context(), []sink.Record{r}), 1)[0])
		server.ChangeSubscription(sub.ID, func(s *stripetest.Subscription) { s.Metadata = nil })
		subscribeLicense(server, "cus_b", "key-1")
		time.Sleep(5 * time.Hour)
		r.Attempt, r.Doubt = 2, true
		err := s.Deliver(t.Context(), []sink.Record{r})
		require.ErrorIs(t, err, sink.ErrRejected)
		require.ErrorContains(t, err, "cus_a may be billed for it already, and its subject leads to cus_b")
		r.Attempt, r.Doubt = 3, false // a person said that cus_a is not
		require.NoError(t, s.Deliver(t.Context(), []sink.Record{r}))
		require.EqualValues(t, 3, server.Total("cus_b", event))
	})
}

// Another subject's events may stand in the same minute.
func TestVerifyNeedsSubjectsThatAreCustomers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, s := licensed(t)
		subscribeLicense(server, "cus_a", "key-1")
		outcome, err := s.Verify(t.Context(), usage(-10, 3), true)
		require.NoError(t, err)
		require.Equal(t, sink.InDoubt, outcome)
		require.Zero(t, server.Requests())
	})
}
