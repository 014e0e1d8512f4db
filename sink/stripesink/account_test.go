package stripesink_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

// account is a Stripe on the clock of a bubble, with two customers, and a sink that
// leads to it.
type account struct {
	*stripetest.Server
	sink    *stripesink.Sink
	connect func(change func(*stripesink.Config)) *stripesink.Sink
}

func newAccount(t *testing.T, change func(*stripesink.Config), meters ...stripetest.Meter) *account {
	t.Helper()
	if meters == nil {
		meters = []stripetest.Meter{{EventName: event}}
	}
	a := &account{Server: stripetest.New(meters...)}
	a.Key = testKey
	for _, id := range []string{customer, "cus_2"} {
		a.AddCustomer(stripetest.Customer{ID: id})
	}
	client, stop := a.Pipe()
	t.Cleanup(stop)
	a.connect = func(change func(*stripesink.Config)) *stripesink.Sink {
		return stripesink.New(config(func(c *stripesink.Config) {
			c.BaseURL, c.HTTPClient, c.SoleWriter = stripetest.URL, client, true
			if change != nil {
				change(c)
			}
		}))
	}
	a.sink = a.connect(change)
	require.NoError(t, a.sink.Validate())
	return a
}

// lately is a record of the n-th whole minute of the test, which begins with the test.
func lately(n int, quantity int64) sink.Record {
	at := time.Now().UTC().Truncate(24 * time.Hour).Add(time.Duration(n) * time.Minute)
	return sink.Record{
		ID: fmt.Sprintf("01-lately-%d", n), Feature: feature, Subject: customer,
		Quantity: quantity, Start: at, End: at.Add(time.Minute), Attempt: 1,
	}
}

// recorded delivers records, the way that one is whose answer got lost.
func (a *account) recorded(t *testing.T, records ...sink.Record) {
	t.Helper()
	for _, r := range records {
		require.NoError(t, a.sink.Deliver(t.Context(), []sink.Record{r}))
	}
}

// roundTrip is a Stripe that is one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(r *http.Request, status int, body string) *http.Response {
	_, _ = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}
