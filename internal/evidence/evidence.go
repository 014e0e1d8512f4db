// Package evidence sends a request at most once and tells whether anything of it may
// have left: what a sink or a checker bases on it is whether a write surely was not
// applied.
package evidence

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxReply bounds what is read of a reply, decompressed.
const maxReply = 1 << 20

// Body is a request body that knows whether any of it was taken. Whatever the transport
// does, a server that got no byte of the body has applied nothing; and once the body is
// shut no goroutine left behind can change that. net/http can't rewind it, so it can't
// repeat the request on another connection, be there an Idempotency-Key or not.
//
// Concurrency: safe. The zero value is an empty body.
type Body struct {
	mu     sync.Mutex
	data   bytes.Reader
	opened bool
	closed bool
}

var errShut = errors.New("request is over")

// NewBody returns a body of data, which must not change any more.
func NewBody(data []byte) *Body {
	b := &Body{}
	b.data.Reset(data)
	return b
}

// Read implements [io.Reader].
func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errShut
	}
	b.opened = true
	return b.data.Read(p)
}

// Close does nothing: a transport closes the body before it is sure to be done.
func (b *Body) Close() error { return nil }

// Shut ends all reading and reports whether there was any.
func (b *Body) Shut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.opened
}

// ReadReply reads a reply of at most 1 MiB to its end, and closes it. With an error the
// data is what came of it.
func ReadReply(body io.ReadCloser) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	_ = body.Close() // the bytes are here, or err says why not
	if err == nil && len(data) > maxReply {
		err = fmt.Errorf("more than %d bytes", maxReply)
	}
	return data, err
}

// NewTransport speaks HTTP/1.1 only: one connection carries one request, so what
// happens to a connection is evidence about exactly that request. idle is how many
// connections to a host are kept, and idleFor how long.
func NewTransport(idle int, idleFor time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            NewDialer().DialContext,
		IdleConnTimeout:        idleFor,
		MaxIdleConnsPerHost:    idle,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              protocols,
		Proxy:                  http.ProxyFromEnvironment, // never for this machine
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
	}
}

// NewDialer is what [NewTransport] dials with.
func NewDialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
}
