package cryptolenstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// URL is the base URL for [Server.Client]; nothing else is there.
const URL = "https://cryptolens.invalid"

// Client returns a client whose requests lead to the server without a connection, so
// that it also works on the fake clock of testing/synctest. It leaves nothing behind.
func (s *Server) Client() *http.Client { return &http.Client{Transport: transport{s}} }

type transport struct{ server *Server }

// RoundTrip implements [http.RoundTripper].
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	if t.server.isDown() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	inner := req.Clone(req.Context())
	inner.Body = http.NoBody
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		inner.Body = io.NopCloser(bytes.NewReader(body))
	}
	rec := &recorder{header: http.Header{}}
	rec.record(t.server, inner)
	if ended := context.Cause(req.Context()); ended != nil {
		return nil, req.Context().Err()
	}
	if rec.aborted && !rec.flushed {
		return nil, io.EOF // what net/http says where a connection breaks before a reply
	}
	return rec.response(req), nil
}

// recorder keeps what a handler writes.
type recorder struct {
	header           http.Header
	status           int
	body             bytes.Buffer
	flushed, aborted bool
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// Flush implements [http.Flusher].
func (r *recorder) Flush() { r.flushed = true }

func (r *recorder) record(h http.Handler, req *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			r.aborted = true
		}
	}()
	h.ServeHTTP(r, req)
}

func (r *recorder) response(req *http.Request) *http.Response {
	body := io.Reader(&r.body)
	if r.aborted {
		body = io.MultiReader(body, broken{})
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)), StatusCode: r.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.header, Body: io.NopCloser(body), ContentLength: -1, Request: req,
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
