package httpsink_test

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

const secret = "canary4711-0123456789abcdef"

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func record(n int, quantity int64) sink.Record {
	at := start.Add(time.Duration(n) * time.Minute)
	return sink.Record{
		ID: fmt.Sprintf("01-record-%d", n), Feature: "tax-report", Subject: "cus_1",
		Quantity: quantity, Start: at, End: at.Add(time.Minute), Attempt: 1,
	}
}

var quiet = slog.New(slog.DiscardHandler)

// backend is a server with the real handler. Its store outlives it, as a database does.
type backend struct {
	store  sink.Sink
	fault  fault
	server *httptest.Server
	addr   string

	mu       sync.Mutex
	requests int
}

// fault is what goes wrong with each request; nil: nothing.
type fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

func newBackend(t testing.TB, store sink.Sink, f fault) *backend {
	t.Helper()
	b := &backend{store: store, fault: f, addr: "127.0.0.1:0"}
	b.start(t)
	t.Cleanup(func() { b.server.Close() })
	return b
}

func (b *backend) start(t testing.TB) {
	t.Helper()
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: b.store, Logger: quiet})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", b.addr)
	require.NoError(t, err)
	b.addr = listener.Addr().String()
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.requests++
		b.mu.Unlock()
		if b.fault != nil {
			b.fault(w, r, h)
			return
		}
		h.ServeHTTP(w, r)
	}))
	_ = b.server.Listener.Close()
	b.server.Listener = listener
	b.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	b.server.Start()
}

// restart replaces server and handler, at the same address.
func (b *backend) restart(t testing.TB) {
	t.Helper()
	b.server.CloseClientConnections()
	b.server.Close()
	b.start(t)
}

func (b *backend) url() string { return "http://" + b.addr + "/v1/usage" }

// modes are the ways to send, as configurations without URL.
var modes = map[string]httpsink.Config{
	"protocol":     {Secret: secret},
	"event batch":  {Secret: secret, DedupeWindow: sink.Forever, CloudEvents: &httpsink.CloudEvents{Source: "//test/meter", Kinds: everyKind, Types: map[string]string{"tax-report": "com.example.report"}}},
	"single event": {Secret: secret, DedupeWindow: sink.Forever, CloudEvents: &httpsink.CloudEvents{Source: "//test/meter", Kinds: everyKind, Single: true}},
}

var everyKind = []sink.Kind{sink.Sum, sink.Max, sink.Last}

func newSink(t testing.TB, cfg httpsink.Config, url string) *httpsink.Sink {
	t.Helper()
	cfg.URL = url
	s := httpsink.New(cfg)
	require.NoError(t, s.Validate())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve is a server that answers with f and has no handler behind it.
func serve(t testing.TB, f http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// swallow deals with the request and keeps the answer.
func swallow(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	next.ServeHTTP(w, r)
	return w
}

// total of the feature and subject of record.
func total(store *memsink.Sink) int64 { return store.Total("tax-report", "cus_1") }
