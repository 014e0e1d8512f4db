package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"

	"github.com/inprocess/meter/sink/filesink"
	"github.com/inprocess/meter/sink/httpsink"
)

// licensing is the vendor's server: the handler over a file that keeps each ID once.
// Over a database it would be httpsink.Idempotent(func …).
type licensing struct {
	http  *http.Server
	addr  string
	store *filesink.Sink
}

func startServer(addr, bills string, loseReply bool) (*licensing, error) {
	store := filesink.New(filesink.Config{Path: bills})
	handler, err := httpsink.NewHandler(httpsink.HandlerConfig{
		Secrets: []string{secret},
		Store:   store,
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/usage", forgetful(handler, loseReply))
	s := &licensing{
		http:  &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)},
		addr:  listener.Addr().String(),
		store: store,
	}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

func (s *licensing) url() string { return "http://" + s.addr + "/v1/usage" }

func (s *licensing) stop() error { return errors.Join(s.http.Close(), s.store.Close()) }

func (s *licensing) restart(bills string) (*licensing, error) {
	if err := s.stop(); err != nil {
		return nil, err
	}
	fmt.Println("The licensing server restarts")
	return startServer(s.addr, bills, false)
}

// forgetful stores the first records and loses the reply. The sender's question before
// them, a batch of none, is request 1.
func forgetful(next http.Handler, loseReply bool) http.Handler {
	requests := atomic.Int32{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); loseReply && n == 2 {
			next.ServeHTTP(httptest.NewRecorder(), r)
			fmt.Printf("  request %d: stored, and the reply is lost\n", n)
			panic(http.ErrAbortHandler)
		} else {
			next.ServeHTTP(w, r)
			fmt.Printf("  request %d: answered\n", n)
		}
	})
}

// readBills adds up the file without any help from the library.
func readBills(path string) (map[string]int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	billed := map[string]int64{}
	for lines := json.NewDecoder(file); ; {
		var line struct {
			Subject  string
			Quantity int64
		}
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return billed, nil
		} else if err != nil {
			return nil, err
		}
		billed[line.Subject] += line.Quantity
	}
}
