// Package cryptolens is the wire of the Cryptolens Web API: it posts a form once,
// over a client that follows no redirect and repeats nothing, and says what left and
// what came back. What an answer means is for package license/cryptolens to say.
package cryptolens

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// DefaultURL is where Cryptolens itself serves the API.
	DefaultURL = "https://api.cryptolens.io"
	// maxReply bounds what is read of a reply, decompressed.
	maxReply = 1 << 20
)

// Wire leads to one API with one token. Create it with [New].
//
// Concurrency: safe.
type Wire struct {
	base    string
	token   string
	timeout time.Duration
	client  *http.Client
	own     *http.Transport // nil: the client was given, its connections are not ours to close
}

// New returns the way to baseURL ("": [DefaultURL]) over a hardened copy of client
// (nil: one of our own). It does no input or output.
func New(baseURL, token string, timeout time.Duration, client *http.Client) *Wire {
	if baseURL == "" {
		baseURL = DefaultURL
	}
	w := &Wire{base: strings.TrimRight(baseURL, "/") + "/api/", token: token, timeout: timeout}
	hard := http.Client{}
	if client != nil {
		hard = *client
	}
	if hard.Transport == nil {
		w.own = newTransport()
		hard.Transport = w.own
	}
	hard.Jar = nil
	// net/http would send the form, with its token, on to another host.
	hard.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w.client = &hard
	return w
}

// newTransport speaks HTTP/1.1 only: one connection carries one request, so what
// happens to a connection is evidence about exactly that request. Idle connections
// go soon, for one that the server drops as we write leaves a doubt.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		IdleConnTimeout:        20 * time.Second,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              protocols,
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
	}
}

// Close drops the idle connections, unless the client was given.
func (w *Wire) Close() {
	if w.own != nil {
		w.own.CloseIdleConnections()
	}
}

// Exchange is the evidence of one request.
//
// Concurrency: a plain value.
type Exchange struct {
	Sent   bool // a byte of the form may have left; false proves that nothing was applied
	Status int  // of HTTP; 0: no response
	Reply  Reply
}

// Post sends form, and the token, to path, such as "key/GetKey", once.
//
// Blocking: until the reply is there, ctx ends or the timeout passes.
//
// Errors: none if a well-formed reply came, whatever its HTTP status and whatever it
// says. Else why not, without the URL; it wraps the context's error if that ended the
// request. A transport may quote the form: [Wire.Clean] the text.
func (w *Wire) Post(ctx context.Context, path string, form url.Values) (Exchange, error) {
	var e Exchange
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return e, err
	}
	form.Set("token", w.token)
	body := newGate(form.Encode())
	// A body of a type of our own has no GetBody: without it net/http can't repeat
	// the request on another connection.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+path, body)
	if err != nil {
		return e, errors.New("the base URL is invalid")
	}
	req.ContentLength = body.size
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "inprocess-meter")
	resp, err := w.client.Do(req)
	if err != nil {
		e.Sent = body.shut()
		return e, because(ctx, err)
	}
	e.Sent, e.Status = true, resp.StatusCode
	data, err := readReply(resp.Body)
	if err != nil {
		return e, fmt.Errorf("reading the reply: %w", because(ctx, err))
	}
	e.Reply, err = Decode(data)
	return e, err
}

// because is err without the URL, and with the end of the context as its reason
// where that is the reason.
func because(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return err
}

func readReply(body io.ReadCloser) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxReply+1))
	_ = body.Close() // the bytes are here, or err says why not
	if err == nil && len(data) > maxReply {
		err = fmt.Errorf("more than %d bytes", maxReply)
	}
	return data, err
}
