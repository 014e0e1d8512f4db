package httpsink_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// direct is a network without one, for bubbles of synctest. It loses the reply of each
// request for which lose says so, after the handler has dealt with it.
type direct struct {
	lose func(n int) bool

	mu      sync.Mutex
	handler http.Handler
	n       int
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	d.n++
	n, h := d.n, d.handler
	d.mu.Unlock()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if d.lose != nil && d.lose(n) {
		return nil, io.ErrUnexpectedEOF
	}
	return w.Result(), nil
}

func (d *direct) replace(h http.Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handler = h
}

func whole(t *testing.T, cfg httpsink.Config, transport http.RoundTripper) *meter.Meter {
	t.Helper()
	cfg.URL, cfg.Transport = "https://licensing.example.com/v1/usage", transport
	m, err := meter.Open(meter.Config{
		Dir: meter.InMemory, Logger: slog.New(slog.DiscardHandler),
		Sinks: []meter.Route{{Name: "licensing", Sink: httpsink.New(cfg)}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Books().Check())
		_ = m.Shutdown(t.Context())
	})
	return m
}

func handler(t *testing.T, store sink.Sink, secrets ...string) http.Handler {
	t.Helper()
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: secrets, Store: store, Logger: quiet})
	require.NoError(t, err)
	return h
}

// A wrong secret costs no count: all is held, Health says why, and once the server knows
// the secret everything goes out.
func TestWrongSecretHoldsCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memsink.New()
		network := &direct{handler: handler(t, store, secret+" of old")}
		m := whole(t, modes["protocol"], network)
		require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 3))
		time.Sleep(5 * time.Minute)
		require.ErrorContains(t, m.Health(), "not by a secret that is known here")
		require.EqualValues(t, 3, m.Books()[0].Pending)

		network.replace(handler(t, store, secret+" of old", secret))
		time.Sleep(5 * time.Minute)
		require.NoError(t, m.Health())
		require.EqualValues(t, 3, m.Books()[0].Delivered)
		require.EqualValues(t, 3, total(store))
	})
}

// A secret that is replaced while records go out, as PROTOCOL.md has it.
func TestSecretIsReplacedAmidDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memsink.New()
		network := &direct{handler: handler(t, store, secret)}
		m := whole(t, modes["protocol"], network)
		require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 3))
		require.NoError(t, m.Flush(t.Context()))
		network.replace(handler(t, store, secret+" revoked"))
		require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 4))
		time.Sleep(5 * time.Minute)
		require.ErrorContains(t, m.Health(), "not by a secret that is known here", "also after Prepare was content")
		require.EqualValues(t, 4, m.Books()[0].Pending)
		network.replace(handler(t, store, secret))
		time.Sleep(5 * time.Minute)
		require.EqualValues(t, 7, m.Books()[0].Delivered)
		require.EqualValues(t, 7, total(store))
	})
}

// A clock that is off is not a customer's fault.
func TestWrongClockHoldsCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := &direct{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Minute) // so the signature is old when it is looked at
			handler(t, memsink.New(), secret).ServeHTTP(w, r)
		})}
		cfg := modes["protocol"]
		cfg.Timeout, cfg.Transport, cfg.URL = time.Hour, network, "https://licensing.example.com"
		err := httpsink.New(cfg).Deliver(t.Context(), []sink.Record{record(1, 1)})
		require.ErrorIs(t, err, sink.ErrNotApplied)
		require.ErrorContains(t, err, "one of the two clocks is wrong")
		require.Equal(t, time.Minute, sink.RetryDelay(err))
	})
}

// Replies that get lost, in each mode: a doubtful record is sent again and stored once
// where the receiver dedupes, and waits for an operator where nobody has promised that.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	for name, cfg := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memsink.New()
				network := &direct{handler: handler(t, store, secret), lose: func(n int) bool { return n > 1 && n%3 != 0 }}
				m := whole(t, cfg, network)
				for range 5 {
					require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 2))
					time.Sleep(10 * time.Minute)
				}
				require.EqualValues(t, 10, m.Books()[0].Delivered)
				require.EqualValues(t, 10, total(store))
			})
		})
	}
	t.Run("no dedupe", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			store := memsink.New()
			network := &direct{handler: handler(t, store, secret), lose: func(n int) bool { return n == 1 }}
			m := whole(t, httpsink.Config{Secret: secret, CloudEvents: &httpsink.CloudEvents{Source: "/m"}}, network)
			require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 2))
			time.Sleep(time.Hour)
			require.EqualValues(t, 2, m.Books()[0].InDoubt)
			require.Equal(t, 1, network.n, "it is not sent again")
		})
	})
}

// A server that can't say it keeps IDs long enough gets nothing.
func TestForgetfulServerGetsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memsink.New()
		m := whole(t, modes["protocol"], &direct{handler: handler(t, window{store, time.Hour}, secret)})
		require.NoError(t, m.Feature("tax-report").Add(t.Context(), "cus_1", 2))
		time.Sleep(5 * time.Minute)
		require.ErrorContains(t, m.Health(), "less than Config.DedupeWindow")
		require.EqualValues(t, 2, m.Books()[0].Pending)
		require.Zero(t, total(store))
	})
}
