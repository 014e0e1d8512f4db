// Package cryptolens speaks to the Cryptolens Web API, or to a license server on
// premises that serves the same.
//
// [Client] is the API in Go: recording usage, license keys, machines and data
// objects.
//
//	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token})
//	err := client.RecordUsage(ctx, 3646, key, 5)
//
// [Checker] checks licenses: it asks for them, verifies their signature, and says what
// they allow. Put it behind a [cache], for it asks the API at every check.
//
//	checker := cache.New(cache.Config{Checker: cryptolens.NewChecker(cryptolens.Config{
//		Token: token, ProductID: 3646, PublicKeys: []string{"<RSAKeyValue>…</RSAKeyValue>"},
//	})})
//
// # What an error says
//
// Every error of a [Client] is an [*Error] and one of the named errors, for errors.Is.
// Each named error belongs to one of two outcomes:
//
//	ErrNotApplied   nothing was changed: correct what it names, or try again
//	ErrInDoubt      the call may have been applied, and nobody knows
//
// and some belong to a class, too:
//
//	ErrConfig       the vendor's token, product or account: alert, and keep the counts
//	ErrLicense      the customer's key says no: unknown, blocked, or out of machines
//
// A call succeeded if its reply has a result, and that is 0, whatever the HTTP status.
// A call was not applied if not one byte of the form left this process, or if the API
// said so in words that its documentation or its own SDKs have, compared without case,
// outer space and final dot. Anything else is doubt: an unknown message, a reply
// without a result, a page of some proxy, a redirect, a broken connection.
//
// # Not verified
//
// The package rests on what Cryptolens documents and on the code of its SDKs; nothing
// was tried against a live account. Not known are: the HTTP status of refusals; the
// words with which a bound or an overflow is refused, which are therefore in doubt;
// whether RecordUsage works with Stripe's billing meters, or only with usage records
// of older metered prices; any limit of requests; whether a key in lower case finds
// one in upper case; how a field masked by the token's feature lock looks.
//
// [cache]: https://pkg.go.dev/github.com/inprocess/meter/cache
package cryptolens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	wire "github.com/inprocess/meter/internal/cryptolens"
	"github.com/inprocess/meter/license"
)

// ClientConfig of a [Client]. The zero value is not usable: Token is required. fmt
// and log/slog print it without the token.
//
// Concurrency: a plain value; NewClient copies it.
type ClientConfig struct {
	// Token is an access token with permission for the methods used: Subscription for
	// RecordUsage, GetKey, Activate, Deactivate, and one for each method of data
	// objects. One that leaves the vendor's own servers should have Key lock -1.
	// Required.
	Token string `json:"-"`

	// AllowHTTP takes a BaseURL with http:// that leads to another machine, as a
	// license server in one's own network has. The token and the keys then travel in
	// clear.
	AllowHTTP bool

	// BaseURL is where the API is, without "/api". "": https://api.cryptolens.io.
	BaseURL string

	// HTTPClient is copied; the copy follows no redirects, keeps no cookies, sends
	// nothing twice and reads at most 1 MiB of a reply. Its transport must not retry.
	// nil: a client of its own, with HTTP/1.1, TLS 1.2 or later, and the proxy of the
	// environment.
	HTTPClient *http.Client `json:"-"`

	// Timeout bounds each call, beside its context. 0: 20 s.
	Timeout time.Duration
}

func (c ClientConfig) validate() error {
	fault, faults := collect("ClientConfig")
	c.check(fault)
	return faults()
}

// collect gathers faults, each by its field of a struct.
func collect(name string) (fault func(field string, err error), faults func() error) {
	var all []error
	return func(field string, err error) {
		if err != nil {
			all = append(all, fmt.Errorf("cryptolens: %s.%s %w", name, field, err))
		}
	}, func() error { return errors.Join(all...) }
}

func (c ClientConfig) check(fault func(field string, err error)) {
	fault("Token", wire.CheckToken(c.Token))
	if c.BaseURL != "" {
		fault("BaseURL", wire.CheckURL(c.BaseURL, c.AllowHTTP))
	}
	if c.Timeout < 0 {
		fault("Timeout", fmt.Errorf("is %v: use a time above 0, or 0 for 20 s", c.Timeout))
	}
}

// Format prints the configuration without the token, whatever the verb.
func (c ClientConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Token:[secret] AllowHTTP:%v BaseURL:%s Timeout:%v}", c.AllowHTTP, shownURL(c), c.Timeout)
}

// LogValue is what [ClientConfig.Format] prints.
func (c ClientConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// shownURL is the base URL, unless it may hold a secret.
func shownURL(c ClientConfig) string {
	if c.BaseURL == "" {
		return wire.DefaultURL
	}
	if wire.CheckURL(c.BaseURL, true) != nil {
		return "(faulty)"
	}
	return c.BaseURL
}

// Client calls the Web API. It never retries. Create it with [NewClient].
//
// Blocking: each method until the API has answered, its context ends or
// ClientConfig.Timeout passes.
// Concurrency: safe.
type Client struct {
	wire   *wire.Wire
	faults error
	shown  string
}

// NewClient returns a client for cfg, which it copies. It does no input or output and
// never fails: [Client.Validate] tells what is wrong with cfg, and so does every call.
func NewClient(cfg ClientConfig) *Client {
	return &Client{
		wire:   wire.New(cfg.BaseURL, cfg.Token, cmp.Or(cfg.Timeout, 20*time.Second), cfg.HTTPClient),
		faults: cfg.validate(),
		shown:  "cryptolens:" + shownURL(cfg),
	}
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the token in it.
func (c *Client) Validate() error { return c.faults }

// Close drops idle connections, unless ClientConfig.HTTPClient was given. The client
// stays usable.
//
// Errors: none.
func (c *Client) Close() error {
	c.wire.Close()
	return nil
}

// Format prints where the client leads, whatever the verb.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.shown) }

// LogValue is what [Client.Format] prints.
func (c *Client) LogValue() slog.Value { return slog.StringValue(c.shown) }

// RecordUsage adds amount, at least 1, to what Cryptolens has Stripe bill to the
// subscription of key.
//
// Guarantee: none against doubles, for the API has no idempotency and no way to read
// back what it has recorded. After an error that is [ErrInDoubt], calling it again may
// bill twice; not calling it again may bill never.
//
// Errors: those named here; [ErrInput] for an amount below 1 or above 2147483647.
func (c *Client) RecordUsage(ctx context.Context, productID int, key license.Key, amount int64) error {
	q := c.query("RecordUsage", productID, key)
	q.count("Amount", "amount", amount)
	_, err := q.post(ctx, "subscription/RecordUsage")
	return err
}

// query is a call in the making. The first fault found on the way keeps it from being
// sent.
type query struct {
	*Client
	method string
	key    license.Key
	form   url.Values
	fault  error
}

// query begins a call about a key.
func (c *Client) query(method string, productID int, key license.Key) *query {
	q := &query{Client: c, method: method, key: key, form: url.Values{}}
	switch {
	case c.faults != nil:
		q.fault = &Error{Method: method, Message: "the configuration is faulty: " + c.faults.Error(), Err: ErrConfig}
	case productID <= 0 || productID > maxInt:
		q.refuse("product ID %d: it is a number from 1 to %d", productID, maxInt)
	case key.IsZero():
		q.refuse("there is no license key")
	}
	q.form.Set("ProductId", strconv.Itoa(productID))
	q.form.Set("Key", key.Reveal())
	return q
}

func (q *query) refuse(format string, args ...any) {
	if q.fault == nil {
		q.fault = &Error{Method: q.method, Message: fmt.Sprintf(format, args...), Err: ErrInput}
	}
}

// maxInt is the greatest number that the API's type for amounts holds.
const maxInt = 1<<31 - 1

// count sets a parameter that says how many. The API takes 0 for a missing parameter,
// and ignores the sign.
func (q *query) count(param, name string, n int64) {
	if n < 1 || n > maxInt {
		q.refuse("%s is %d: it must be from 1 to %d", name, n, maxInt)
	}
	q.form.Set(param, strconv.FormatInt(n, 10))
}

// post sends the call and returns the reply to one that succeeded.
func (q *query) post(ctx context.Context, path string) (wire.Reply, error) {
	if q.fault != nil {
		return wire.Reply{}, q.fault
	}
	e, err := q.wire.Post(ctx, path, q.form)
	if err == nil && e.Reply.OK {
		return e.Reply, nil
	}
	return e.Reply, q.judge(e, err)
}
