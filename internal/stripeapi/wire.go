package stripeapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// maxReply bounds what is read of a reply, decompressed. A page of 100 objects
// takes a tenth of it.
const maxReply = 1 << 20

// Exchange is the evidence of one request: what left, and what came back.
//
// Concurrency: filled while the request runs; read it afterwards.
type Exchange struct {
	Sent     bool        // a byte of the body may have left; false proves that nothing was recorded
	Status   int         // 0: no response
	Header   http.Header // nil: no response
	Body     []byte      // what came of the response's body
	Complete bool        // Body is the whole of it
}

type exchangeKey struct{}

// Watch returns a context whose next request with a body leaves its evidence in
// the Exchange. One Exchange is for one request.
func Watch(ctx context.Context) (context.Context, *Exchange) {
	e := &Exchange{}
	return context.WithValue(ctx, exchangeKey{}, e), e
}

// wire sends each request that has a body, so each write, at most once, and reads
// replies within bounds.
type wire struct{ base http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	once, body, err := sendOnce(req)
	if err != nil {
		return nil, err
	}
	exchange, ok := req.Context().Value(exchangeKey{}).(*Exchange)
	if !ok {
		exchange = &Exchange{}
	}
	resp, err := w.base.RoundTrip(once)
	if err != nil {
		exchange.Sent = body.shut()
		return nil, err
	}
	exchange.Sent, exchange.Status, exchange.Header = true, resp.StatusCode, resp.Header
	exchange.Body, err = readReply(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the reply (status %d): %w", resp.StatusCode, err)
	}
	exchange.Complete = true
	resp.Body = io.NopCloser(bytes.NewReader(exchange.Body))
	return resp, nil
}

// sendOnce returns a copy of req that can't be sent twice. net/http resends a
// request with an Idempotency-Key by itself when a kept-alive connection breaks,
// unless it has no way to rewind the body; then two attempts would look like one.
func sendOnce(req *http.Request) (*http.Request, *gate, error) {
	g := &gate{}
	once := req.WithContext(req.Context())
	once.GetBody = nil
	if req.Body == nil {
		return once, g, nil
	}
	data, err := io.ReadAll(req.Body)
	_ = req.Body.Close() // read to its end: nothing is left to fail
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request's body: %w", err)
	}
	if len(data) == 0 {
		once.Body, once.ContentLength = http.NoBody, 0
		return once, g, nil
	}
	g.data = bytes.NewReader(data)
	once.Body, once.ContentLength = g, int64(len(data))
	return once, g, nil
}

func readReply(body io.ReadCloser) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	_ = body.Close() // the bytes are here, or err says why not
	if err == nil && len(data) > maxReply {
		err = fmt.Errorf("more than %d bytes", maxReply)
	}
	return data, err
}

// gate is a request body that knows whether any of it was taken. Whatever the
// transport does, a server that got no byte of the body has recorded nothing;
// and once the gate is shut no goroutine left behind can change that.
type gate struct {
	mu     sync.Mutex
	data   *bytes.Reader
	opened bool
	closed bool
}

var errShut = errors.New("request is over")

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, errShut
	}
	g.opened = true
	return g.data.Read(p)
}

// Close does nothing: a transport closes the body before it is sure to be done.
func (g *gate) Close() error { return nil }

// shut ends all reading and reports whether there was any.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.opened
}
