package stripesink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// whole is a meter that bills through Stripe, from the count to the bill.
func whole(t *testing.T, s sink.Sink) *meter.Meter {
	t.Helper()
	m, err := meter.Open(meter.Config{
		Dir: t.TempDir(), Retain: 40 * 24 * time.Hour, Logger: slog.New(slog.DiscardHandler),
		Sinks: []meter.Route{{Name: "stripe", Sink: s}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Books().Check())
		_ = m.Shutdown(t.Context())
	})
	return m
}

func metersAt(t *testing.T, srv *stripetest.Server, change ...func(*http.Client)) *stripesink.Sink {
	t.Helper()
	client, stop := srv.Pipe()
	t.Cleanup(stop)
	for _, c := range change {
		c(client)
	}
	return stripesink.New(stripesink.Config{
		Key: testKey, BaseURL: stripetest.URL, HTTPClient: client, SoleWriter: true,
		Meters: map[string]stripesink.Meter{feature: {EventName: event}},
	})
}

func line(m *meter.Meter) meter.Line { return m.Books()[0] }

// Stripe takes usage of a customer that it does not know, and reports that later.
func TestReportedUsageIsBilledOnceItCanBe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stripetest.New(stripetest.Meter{EventName: event})
		s := metersAt(t, srv)
		m := whole(t, s)
		const secret = "whsec_integration"
		webhook := s.Webhook(stripesink.WebhookConfig{Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
			Reopen: func(ctx context.Context, recordID, reason string) error {
				return m.Reopen(ctx, "stripe", recordID, reason)
			}})
		report := m.Feature(feature)
		require.NoError(t, report.Add(t.Context(), customer, 3))
		time.Sleep(2 * time.Minute)
		require.EqualValues(t, 3, line(m).Delivered, "accepted …")
		require.Zero(t, srv.Total(customer, event), "… and not billed")

		deliveries := srv.Webhook(secret)
		require.NotEmpty(t, deliveries)
		for _, d := range append(deliveries, deliveries...) { // Stripe may send each twice
			w := httptest.NewRecorder()
			webhook.ServeHTTP(w, d.Request("/stripe"))
			require.Equal(t, http.StatusOK, w.Code)
		}
		require.EqualValues(t, 3, line(m).Rejected)
		var id string
		for q, outcome := range m.Quarantine() {
			require.Equal(t, sink.Rejected, outcome)
			require.Contains(t, q.Reason, "meter_event_customer_not_found")
			id = q.ID
		}
		srv.AddCustomer(stripetest.Customer{ID: customer})
		require.NoError(t, m.Settle(t.Context(), "stripe", id, sink.Pending, "created the customer"))
		time.Sleep(time.Minute)
		require.EqualValues(t, 3, srv.Total(customer, event), "under another identifier, for Stripe knows the first")
		require.EqualValues(t, 3, line(m).Delivered)
	})
}

// After a day Stripe may have forgotten an identifier. What it has is found out by
// the total of the record's minute, never by sending again.
func TestDoubtIsVerifiedAfterADay(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"it was recorded": true, "it was not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := stripetest.New(stripetest.Meter{EventName: event})
				srv.AddCustomer(stripetest.Customer{ID: customer})
				time.Sleep(time.Minute)
				var outage badGateway
				m := whole(t, metersAt(t, srv, func(c *http.Client) { outage.to, c.Transport = c.Transport, &outage }))
				srv.Script(stripetest.Fault{Answer: stripetest.Drop, Applied: applied, On: "/meter_events"})
				require.NoError(t, m.Feature(feature).Add(t.Context(), customer, 3))
				time.Sleep(22 * time.Hour)
				require.EqualValues(t, 3, line(m).InDoubt)
				require.Greater(t, outage.refused.Load(), int64(10))
				time.Sleep(3 * time.Hour)
				outage.over.Store(true)
				sent := srv.RequestsTo("POST /v1/billing/meter_events")
				if !applied {
					require.EqualValues(t, 3, line(m).InDoubt, "seen missing, but once")
				}
				time.Sleep(10 * time.Hour)
				require.EqualValues(t, 3, line(m).Delivered)
				require.EqualValues(t, 3, srv.Total(customer, event))
				if applied {
					require.Equal(t, sent, srv.RequestsTo("POST /v1/billing/meter_events"), "not one attempt more")
				}
			})
		})
	}
}

// badGateway lets one meter event pass and answers the others itself, until Stripe is
// back.
type badGateway struct {
	to      http.RoundTripper
	over    atomic.Bool
	refused atomic.Int64
}

func (g *badGateway) RoundTrip(r *http.Request) (*http.Response, error) {
	if g.over.Load() || !strings.HasSuffix(r.URL.Path, "/meter_events") || g.refused.Add(1) == 1 {
		return g.to.RoundTrip(r)
	}
	_, _ = io.Copy(io.Discard, r.Body) // as a proxy would
	w := httptest.NewRecorder()
	w.WriteHeader(http.StatusBadGateway)
	return w.Result(), nil
}

// Usage stands on the bill of the period in which it was used, to the second.
func TestUsageRecordsFollowThePeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := stripetest.New()
		srv.Grace = time.Minute
		srv.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
		srv.AddCustomer(stripetest.Customer{ID: customer})
		began := time.Now()
		end := began.Add(10*time.Minute + 25*time.Second) // within a window
		sub := srv.AddSubscription(stripetest.Subscription{
			Customer: customer, Items: []stripetest.Item{{Price: "price_1"}}, Start: began.AddDate(0, 0, -20), End: end,
		})
		client, stop := srv.Pipe()
		t.Cleanup(stop)
		m := whole(t, stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
			Key: testKey, BaseURL: stripetest.URL, HTTPClient: client,
			Prices: map[string][]string{feature: {"price_1"}},
		}))
		report := m.Feature(feature)
		var before, after int64
		for range 20 * 60 {
			time.Sleep(time.Second)
			if time.Now().Before(end) {
				before++
			} else {
				after++
			}
			require.NoError(t, report.Add(t.Context(), customer, 1))
		}
		time.Sleep(2 * time.Minute)
		item := sub.Items[0].ID
		require.InDelta(t, before, srv.Billed(item, began), 1, "the count of the last second may be on either side")
		require.EqualValues(t, before+after, srv.Billed(item, began)+srv.Billed(item, time.Now()))
		require.EqualValues(t, before+after, line(m).Delivered)

		records, err := m.Records("stripe", end, time.Now())
		require.NoError(t, err)
		total := int64(0)
		for r, outcome := range records {
			require.Equal(t, sink.Delivered, outcome)
			total += r.Quantity
		}
		require.EqualValues(t, srv.Billed(item, time.Now()), total)
	})
}

// Where many bills end at once, their records need time to get there before.
func TestManyPeriodsThatEndAtOnce(t *testing.T) {
	t.Parallel()
	const customers, lead = 1000, 115 * time.Second
	synctest.Test(t, func(t *testing.T) {
		srv := stripetest.New()
		srv.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
		began := time.Now()
		end := began.Add(15*time.Minute + 30*time.Second)
		for i := range customers {
			c := srv.AddCustomer(stripetest.Customer{ID: fmt.Sprint("cus_", i)})
			srv.AddSubscription(stripetest.Subscription{
				Customer: c.ID, Items: []stripetest.Item{{Price: "price_1"}}, Start: began.AddDate(0, 0, -20), End: end,
			})
		}
		client, stop := srv.Pipe()
		t.Cleanup(stop)
		s := stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
			Key: testKey, BaseURL: stripetest.URL, HTTPClient: client, Prices: map[string][]string{feature: {"price_1"}},
		})
		m := whole(t, s)
		report := m.Feature(feature)
		use := func() {
			for i := range customers {
				require.NoError(t, report.Add(t.Context(), fmt.Sprint("cus_", i), 1))
			}
		}
		use()
		time.Sleep(10 * time.Minute) // Stripe takes 20 a second
		require.EqualValues(t, customers, line(m).Delivered)
		require.Equal(t, end.Add(-lead).UTC(), s.NextEnd(time.Now()))
		time.Sleep(time.Until(end.Add(-lead - 5*time.Second)))
		use()
		time.Sleep(time.Until(end.Add(-time.Second)))
		require.EqualValues(t, 2*customers, line(m).Delivered)
	})
}

// Also with many instances, whose windows begin far apart, wherever the end lies
// within a minute.
func TestInstancesFollowThePeriod(t *testing.T) {
	t.Parallel()
	for _, instances := range []int{1, 20, 60} {
		for _, offset := range []time.Duration{time.Second, 10 * time.Second, 40 * time.Second} {
			inBubble(t, fmt.Sprint(instances, " instances, an end at ", offset), func(t *testing.T) {
				srv := stripetest.New()
				srv.Grace = 5 * time.Minute
				srv.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
				srv.AddCustomer(stripetest.Customer{ID: customer})
				began := time.Now()
				end := began.Add(8*time.Minute + offset)
				sub := srv.AddSubscription(stripetest.Subscription{
					Customer: customer, Items: []stripetest.Item{{Price: "price_1"}}, Start: began.AddDate(0, 0, -20), End: end,
				})
				client, stop := srv.Pipe()
				t.Cleanup(stop)
				m := whole(t, stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
					Key: testKey, BaseURL: stripetest.URL, HTTPClient: client, Instances: instances,
					Prices: map[string][]string{feature: {"price_1"}},
				}))
				report, before := m.Feature(feature), int64(0)
				for time.Since(began) < 11*time.Minute {
					time.Sleep(time.Second)
					if time.Now().Before(end) {
						before++
					}
					require.NoError(t, report.Add(t.Context(), customer, 1))
				}
				time.Sleep(4 * time.Minute)
				require.InDelta(t, before, srv.Billed(sub.Items[0].ID, began), 1)
			})
		}
	}
}

// An outage's windows are merged by the hour, but not across the end of a period.
func TestMergedUsageRecordsStayInTheirPeriod(t *testing.T) {
	t.Parallel()
	for _, increment := range []bool{false, true} {
		inBubble(t, fmt.Sprint("increment: ", increment), func(t *testing.T) {
			srv := stripetest.New()
			srv.AddPrice(stripetest.Price{ID: "price_1", Aggregate: "sum"})
			srv.AddCustomer(stripetest.Customer{ID: customer})
			time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
			began := time.Now()
			end := began.Add(40*time.Minute + 25*time.Second)
			sub := srv.AddSubscription(stripetest.Subscription{
				Customer: customer, Items: []stripetest.Item{{Price: "price_1"}}, Start: began.AddDate(0, 0, -20), End: end,
			})
			client, stop := srv.Pipe()
			t.Cleanup(stop)
			outage := outage{to: client.Transport}
			client.Transport = &outage
			m := whole(t, stripesink.NewUsageRecords(stripesink.UsageRecordsConfig{
				Key: testKey, BaseURL: stripetest.URL, HTTPClient: client, Increment: increment,
				Prices: map[string][]string{feature: {"price_1"}},
			}))
			report := m.Feature(feature)
			require.NoError(t, report.Add(t.Context(), customer, 1)) // by which the end is known
			time.Sleep(2 * time.Minute)
			outage.on.Store(true)
			after := int64(0)
			for time.Since(began) < 59*time.Minute {
				time.Sleep(10 * time.Second)
				if !time.Now().Before(end) {
					after++
				}
				require.NoError(t, report.Add(t.Context(), customer, 1))
			}
			time.Sleep(70 * time.Minute)
			outage.on.Store(false)
			time.Sleep(2 * time.Hour)
			require.InDelta(t, after, srv.Billed(sub.Items[0].ID, time.Now()), 1, "%v", m.Books())
			require.Positive(t, line(m).Rejected, "what came too late for its period waits for a person")
			require.Zero(t, line(m).Pending)
		})
	}
}

// outage refuses every request while it is on.
type outage struct {
	to http.RoundTripper
	on atomic.Bool
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.on.Load() {
		return nil, errors.New("connection refused")
	}
	return o.to.RoundTrip(r)
}
