package stripeapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/inprocess/meter/internal/evidence"
)

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
		exchange.Sent = body.Shut()
		return nil, err
	}
	exchange.Sent, exchange.Status, exchange.Header = true, resp.StatusCode, resp.Header
	exchange.Body, err = evidence.ReadReply(resp.Body)
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
func sendOnce(req *http.Request) (*http.Request, *evidence.Body, error) {
	g := &evidence.Body{}
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
	g = evidence.NewBody(data)
	once.Body, once.ContentLength = g, int64(len(data))
	return once, g, nil
}
