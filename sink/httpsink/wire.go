package httpsink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// maxReply bounds what is read of an answer. 1,000 results with reasons take half.
const maxReply = 1 << 20

// exchange is the evidence of one request: what left, and what came back.
type exchange struct {
	sent     bool // a byte of the body may have left; false proves that nothing was recorded
	status   int  // 0: no answer
	header   http.Header
	body     []byte
	complete bool // body is the whole of it
	err      error
}

// send makes one request, once, and keeps the evidence. A RoundTripper follows no
// redirect and keeps no cookie, and it can't repeat a body that it can't rewind, be there
// an Idempotency-Key or not.
func (s *Sink) send(ctx context.Context, r request) exchange {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return exchange{err: err}
	}
	g := &gate{data: bytes.NewReader(r.body)}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, g)
	if err != nil {
		return exchange{err: err}
	}
	req.ContentLength = int64(len(r.body))
	req.Header = s.header(r)
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return exchange{sent: g.shut(), err: err}
	}
	body, err := readReply(resp.Body)
	g.shut()
	return exchange{sent: true, status: resp.StatusCode, header: resp.Header, body: body, complete: err == nil, err: err}
}

func (s *Sink) header(r request) http.Header {
	key := sha256.Sum256(r.body)
	h := http.Header{
		"Accept":          {jsonType + ", " + problemType},
		"Accept-Encoding": {"identity"}, // a bomb stays as small as it came
		"Content-Type":    {r.contentType},
		"Idempotency-Key": {`"` + hex.EncodeToString(key[:16]) + `"`},
		"User-Agent":      {"meter-httpsink"},
	}
	if s.cfg.Secret != "" {
		h.Set(signatureHeader, sign(s.cfg.Secret, time.Now(), r.body))
	}
	if s.cfg.Token != "" {
		h.Set("Authorization", "Bearer "+s.cfg.Token)
	}
	return h
}

func readReply(body io.ReadCloser) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	_ = body.Close() // the bytes are here, or err says why not
	if err == nil && len(data) > maxReply {
		err = fmt.Errorf("the answer has more than %d bytes", maxReply)
	}
	return data, err
}

// gate is a request body that knows whether any of it was taken. Whatever the
// transport does, a server that got no byte of the body has recorded nothing; and once
// the gate is shut no goroutine left behind can change that.
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

// newTransport speaks HTTP/1.1 only: one connection carries one request, so what
// happens to a connection is evidence about exactly that request. Where nothing
// dedupes, each request gets a new one: one that the server has just closed for want
// of use would be doubt.
func newTransport(cfg Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if u, err := url.Parse(cfg.URL); err == nil && u.Scheme == "http" && !cfg.AllowHTTP {
		dialer.Control = onlyLoopback // "localhost" is what a resolver says it is
	}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableCompression:     true,
		DisableKeepAlives:      cfg.DedupeWindow <= 0,
		IdleConnTimeout:        45 * time.Second,
		MaxIdleConnsPerHost:    mostConcurrency,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              protocols,
		Proxy:                  http.ProxyFromEnvironment, // never for this machine
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
	}
}

func onlyLoopback(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if !loopback(host) {
		return fmt.Errorf("%s is not this machine: http:// goes to no other without Config.AllowHTTP", host)
	}
	return nil
}
