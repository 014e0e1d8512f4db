package httpsink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/inprocess/meter/internal/evidence"
)

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
	g := evidence.NewBody(r.body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, g)
	if err != nil {
		return exchange{err: err}
	}
	req.ContentLength = int64(len(r.body))
	req.Header = s.header(r)
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return exchange{sent: g.Shut(), err: err}
	}
	body, err := evidence.ReadReply(resp.Body)
	g.Shut()
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

// newTransport gives each request a new connection where nothing dedupes: one that the
// server has just closed for want of use would be doubt.
func newTransport(cfg Config) *http.Transport {
	t := evidence.NewTransport(mostConcurrency, 45*time.Second)
	t.DisableCompression = true
	t.DisableKeepAlives = cfg.DedupeWindow <= 0
	if u, err := url.Parse(cfg.URL); err == nil && u.Scheme == "http" && !cfg.AllowHTTP {
		dialer := evidence.NewDialer()
		dialer.Control = onlyLoopback // "localhost" is what a resolver says it is
		t.DialContext = dialer.DialContext
	}
	return t
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
