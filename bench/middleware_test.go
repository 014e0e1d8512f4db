package bench

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inprocess/meter"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	metrics "go.opentelemetry.io/otel/metric/noop"
	traces "go.opentelemetry.io/otel/trace/noop"
)

// writer has the optional interfaces of net/http's own, and does nothing.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header                 { return w.header }
func (w *writer) Write(p []byte) (int, error)         { return len(p), nil }
func (w *writer) WriteString(s string) (int, error)   { return len(s), nil }
func (w *writer) WriteHeader(int)                     {}
func (w *writer) Flush()                              {}
func (w *writer) CloseNotify() <-chan bool            { return nil }
func (w *writer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, http.ErrNotSupported
}

var body = []byte(`{"ok":true}`)

var bare = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
})

func request() *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/reports", nil)
	r.Header.Set("X-Customer", "cus_1")
	return r
}

// byHeader is what any middleware that bills must do at least.
var byHeader meter.Identify = func(r *http.Request) (meter.Caller, error) {
	return meter.Caller{Subject: r.Header.Get("X-Customer")}, nil
}

func open(tb testing.TB, dir string) *meter.Meter {
	tb.Helper()
	m, err := meter.Open(meter.Config{Dir: dir, Identify: byHeader})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, m.Shutdown(context.Background())) })
	return m
}

// noopTelemetry is otelhttp with providers that record nothing: its own cost alone.
func noopTelemetry() http.Handler {
	return otelhttp.NewHandler(bare, "reports",
		otelhttp.WithMeterProvider(metrics.NewMeterProvider()), otelhttp.WithTracerProvider(traces.NewTracerProvider()))
}

func BenchmarkMiddleware(b *testing.B) {
	for _, of := range []struct {
		name    string
		handler http.Handler
	}{
		{"bare", bare},
		{"meter,memory", meter.Middleware(open(b, meter.InMemory).Feature("report"))(bare)},
		{"meter,directory", meter.Middleware(open(b, b.TempDir()).Feature("report"))(bare)},
		{"otelhttp,noop", noopTelemetry()},
	} {
		b.Run(of.name, func(b *testing.B) {
			b.ReportAllocs()
			w, r := &writer{header: http.Header{}}, request()
			for b.Loop() {
				of.handler.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkAdded says in one number what the rows above say in four: the part of
// otelhttp's own cost that meter adds to a request.
func BenchmarkAdded(b *testing.B) {
	w, r := &writer{header: http.Header{}}, request()
	serving := func(h http.Handler) contender {
		return contender{run: func(n int) {
			for range n {
				h.ServeHTTP(w, r)
			}
		}}
	}
	best := turns(b, 200, []contender{
		serving(bare),
		serving(meter.Middleware(open(b, meter.InMemory).Feature("report"))(bare)),
		serving(meter.Middleware(open(b, b.TempDir()).Feature("report"))(bare)),
		serving(noopTelemetry()),
	})
	added := func(i int) float64 { return best[i] - best[0] }
	b.ReportMetric(added(1), "memory-ns")
	b.ReportMetric(added(2), "directory-ns")
	b.ReportMetric(added(3), "otelhttp-ns")
	b.ReportMetric(added(1)/added(3), "memory/otelhttp")
	b.ReportMetric(added(2)/added(3), "directory/otelhttp")
}

// Allocations can be counted exactly, so a test holds them to the promise.
func TestMiddlewareAllocatesTwice(t *testing.T) {
	m := open(t, meter.InMemory)
	report := m.Feature("report")
	w, r := &writer{header: http.Header{}}, request()
	allocations := func(h http.Handler) float64 {
		return testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
	}
	base := allocations(bare)
	require.LessOrEqual(t, allocations(meter.Middleware(report)(bare)), base+2)
	require.Greater(t, allocations(noopTelemetry()), base+2, "the comparison measures something")
	require.EqualValues(t, 101, report.Total("cus_1").Quantity, "AllocsPerRun warms up once")
}
