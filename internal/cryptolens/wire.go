// Package cryptolens is the wire of the Cryptolens Web API: it posts a form once,
// over a client that follows no redirect and repeats nothing, and says what left and
// what came back. What an answer means is for package license/cryptolens to say.
package cryptolens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/evidence"
)

// DefaultURL is where Cryptolens itself serves the API.
const DefaultURL = "https://api.cryptolens.io"

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
		// Few and not for long: one that the server drops as we write leaves a doubt.
		w.own = evidence.NewTransport(16, 20*time.Second)
		hard.Transport = w.own
	}
	hard.Jar = nil
	// net/http would send the form, with its token, on to another host.
	hard.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	w.client = &hard
	return w
}

// Timeout is how long a call may take.
func (w *Wire) Timeout() time.Duration { return w.timeout }

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
	text := []byte(form.Encode())
	body := evidence.NewBody(text)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+path, body)
	if err != nil {
		return e, errors.New("the base URL is invalid")
	}
	req.ContentLength = int64(len(text))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "inprocess-meter")
	resp, err := w.client.Do(req)
	if err != nil {
		e.Sent = body.Shut()
		return e, because(ctx, err)
	}
	e.Sent, e.Status = true, resp.StatusCode
	data, err := evidence.ReadReply(resp.Body)
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
