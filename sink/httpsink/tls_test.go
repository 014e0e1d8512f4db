package httpsink_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// A server without a certificate that this machine trusts gets no record.
func TestServerMustProveItsName(t *testing.T) {
	t.Parallel()
	asked := atomic.Int32{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	s := newSink(t, modes["protocol"], server.URL)
	err := s.Deliver(t.Context(), []sink.Record{record(1, 1)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorContains(t, err, "certificate")
	require.Zero(t, asked.Load())
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	server.StartTLS()
	t.Cleanup(server.Close)
	err := newSink(t, modes["protocol"], server.URL).Deliver(t.Context(), []sink.Record{record(1, 1)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorContains(t, err, "protocol version")
}

// With a transport of one's own, as for client certificates.
func TestTransport(t *testing.T) {
	t.Parallel()
	store := memsink.New()
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: store, Logger: quiet})
	require.NoError(t, err)
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	cfg := modes["protocol"]
	cfg.Transport = server.Client().Transport
	s := newSink(t, cfg, server.URL)
	require.NoError(t, s.Prepare(t.Context(), nil))
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(1, 3)}))
	require.EqualValues(t, 3, total(store))
}

// net/http repeats a request with an Idempotency-Key by itself when a connection that was
// kept alive breaks. Then two attempts would look like one.
func TestTransportRepeatsNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	store, requests := memsink.New(), atomic.Int32{}
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: store, Logger: quiet})
	require.NoError(t, err)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 { // on the connection of the first
			swallow(r, h)
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	s := newSink(t, modes["protocol"], "http://"+l.Addr().String())
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(1, 1)}))
	require.Equal(t, "doubt", outcome(t, s.Deliver(t.Context(), []sink.Record{record(2, 2)})))
	require.EqualValues(t, 2, requests.Load())
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(2, 2)}))
	require.EqualValues(t, 3, total(store))
}

// "localhost" is what a resolver says it is.
func TestHTTPNeverLeavesThisMachine(t *testing.T) {
	t.Parallel()
	require.NoError(t, httpsink.OnlyLoopback("tcp", "127.0.0.1:80", nil))
	require.NoError(t, httpsink.OnlyLoopback("tcp", "[::1]:80", nil))
	require.Error(t, httpsink.OnlyLoopback("tcp", "192.0.2.1:80", nil))
	require.Error(t, httpsink.OnlyLoopback("tcp", "nonsense", nil))
}

// Where nothing dedupes, a connection that the server closes for want of use must not
// be doubt.
func TestConnectionsAreKeptOnlyWhereDoubtIsCheap(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  httpsink.Config
		most int32
	}{
		"dedupes":  {modes["protocol"], 1},
		"does not": {httpsink.Config{Secret: secret, CloudEvents: &httpsink.CloudEvents{Source: "/m"}}, 3},
	} {
		h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: memsink.New(), Logger: quiet})
		require.NoError(t, err)
		connections := atomic.Int32{}
		server := httptest.NewUnstartedServer(h)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		s := newSink(t, test.cfg, server.URL)
		for n := range 3 {
			require.NoError(t, s.Deliver(t.Context(), []sink.Record{record(n, 1)}))
		}
		require.Equal(t, test.most, connections.Load(), name)
	}
}
