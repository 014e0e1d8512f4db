// Httpserver is a small server as one would deploy it: metered, with license keys
// and an orderly stop.
//
//	go run ./examples/httpserver :8080   # until SIGINT or SIGTERM
//	go run ./examples/httpserver         # a few requests to itself, then the same stop
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/filesink"
)

func main() {
	// SIGTERM is what orchestrators send; some kill 30 s later.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 {
		err = run(ctx, os.Args[1], "usage", func(string, *meter.Meter) {})
	} else {
		err = demonstrate(ctx)
	}
	if err != nil {
		slog.Error("httpserver", "err", err)
		os.Exit(1)
	}
}

// run serves at addr, counting into dir, until ctx ends. It calls ready once the
// server can be reached.
func run(ctx context.Context, addr, dir string, ready func(url string, m *meter.Meter)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	m, err := meter.Open(meter.Config{
		Dir:      filepath.Join(dir, "counts"),
		Sinks:    []meter.Route{{Name: "bills", Sink: filesink.New(filesink.Config{Path: filepath.Join(dir, "bills.jsonl")})}},
		Checker:  licenses,
		Identify: meter.KeyHeader("X-License-Key"),
		Window:   meter.OnFlush, // sent by Flush here, so that the story is always the same; you would leave this out
	})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(m), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return errors.Join(err, m.Shutdown(ctx))
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ready(fmt.Sprintf("http://%v", listener.Addr()), m)

	select {
	case err = <-served: // it failed
	case <-ctx.Done():
	}
	// ctx has ended, so it can't be the one to stop with. One budget for both, below
	// the 30 s that are usual before a kill; the server first, for its last requests
	// still count.
	stop, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(stop), m.Shutdown(stop))
}
