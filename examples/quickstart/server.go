package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/filesink"
)

func billsPath(dir string) string { return filepath.Join(dir, "bills.jsonl") }

// open is all the setup there is: where counts live, and who bills.
func open(dir string) (*meter.Meter, error) {
	bills := filesink.New(filesink.Config{Path: billsPath(dir)})
	return meter.Open(meter.Config{
		Dir:      filepath.Join(dir, "counts"),
		Sinks:    []meter.Route{{Name: "file", Sink: bills}},
		Identify: customer,
	})
}

// customer believes a header, to keep this short. Yours asks your authentication.
func customer(r *http.Request) (meter.Caller, error) {
	return meter.Caller{Subject: r.Header.Get("X-Customer")}, nil
}

// shop sells three features: two handlers and a function.
func shop(m *meter.Meter) http.Handler {
	report, search, summary := m.Feature("tax-report"), m.Feature("search"), m.Feature("summary")

	mux := http.NewServeMux()
	mux.Handle("POST /tax-report", meter.Middleware(report)(http.HandlerFunc(createReport)))
	mux.Handle("POST /search", meter.Middleware(search)(http.HandlerFunc(find)))

	summarize := meter.Wrap(summary, summarize)
	mux.HandleFunc("POST /summary", func(w http.ResponseWriter, r *http.Request) {
		who, _ := customer(r)
		text, err := summarize(meter.WithCaller(r.Context(), who), "a long text")
		if err != nil {
			meter.WriteProblem(w, r, err)
			return
		}
		_, _ = fmt.Fprintln(w, text)
	})
	return mux
}

func createReport(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "a tax report") }
func find(w http.ResponseWriter, _ *http.Request)         { _, _ = fmt.Fprintln(w, "three results") }

func summarize(_ context.Context, text string) (string, error) { return text[:6], nil }

// serve is the server's process. It prints its URL and serves until its standard
// input ends, or until it kills itself.
func serve(dir string, suicidal bool) error {
	m, err := open(dir)
	if err != nil {
		return err
	}
	handler := shop(m)
	if suicidal {
		handler = killingItself(m, handler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Printf("http://%v\n", listener.Addr())

	_, _ = io.Copy(io.Discard, os.Stdin)

	// The server first, then the meter: nothing is counted behind its back.
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	err = server.Shutdown(ctx)
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return errors.Join(err, m.Shutdown(ctx))
}

// killingItself delivers what the first second has brought, and then kills the
// process in the middle of a request: after the count, before the answer.
func killingItself(m *meter.Meter, next http.Handler) http.Handler {
	var armed atomic.Bool
	go func() {
		for delivered(m) == 0 {
			if err := m.Flush(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		armed.Store(true)
	}()
	var sinceDelivery atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if armed.Load() && sinceDelivery.Add(1) == 500 {
			self, _ := os.FindProcess(os.Getpid())
			_ = self.Kill() // SIGKILL: no handler, no defer, no flush runs after this
			select {}
		}
	})
}

func delivered(m *meter.Meter) (n int64) {
	for _, line := range m.Books() {
		n += line.Delivered
	}
	return n
}
