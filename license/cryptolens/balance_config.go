package cryptolens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/inprocess/meter/license"
)

// BalanceConfig of a [Balance]. The zero value is not usable: Token, ProductID, Key and
// Object are required. fmt and log/slog print it without the token.
//
// Concurrency: a plain value; NewBalance copies it.
type BalanceConfig struct {
	// Token is an access token with the permissions ListDataObject, DecrementIntValue and
	// IncrementIntValue. Required.
	Token string `json:"-"`

	// ProductID is the product that all keys belong to. Required.
	ProductID int

	// Key finds the license key of a subject, such as the Key method of meter's cache. An
	// error, or the zero Key, means that there is none now. It must return when its context
	// ends, be safe for concurrent use, and keep the key out of its error. Required.
	Key func(ctx context.Context, subject string) (license.Key, error) `json:"-"`

	// Object is the name of the data object whose number is what the key has left. Only
	// one of a key may have it; a key without one has nothing. Required.
	Object string

	// Sole says that nobody else takes from the balances: no other process, feature or
	// subject. Then what became of a transfer without an answer is found by reading; see
	// [Balance].
	Sole bool

	// AllowHTTP takes a BaseURL with http:// that leads to another machine, as in
	// ClientConfig.
	AllowHTTP bool

	// BaseURL is where the API is, without "/api". "": https://api.cryptolens.io.
	BaseURL string

	// HTTPClient is copied, as in ClientConfig. nil: a client of its own.
	HTTPClient *http.Client `json:"-"`

	// Timeout bounds each call of the API, beside its context. 0: 8 s.
	Timeout time.Duration
}

func (c BalanceConfig) client() ClientConfig {
	return ClientConfig{Token: c.Token, AllowHTTP: c.AllowHTTP, BaseURL: c.BaseURL, HTTPClient: c.HTTPClient,
		Timeout: cmp.Or(c.Timeout, 8*time.Second)} // three of them fit into what meter waits
}

func (c BalanceConfig) validate() error {
	fault, faults := collect("BalanceConfig")
	c.client().check(fault)
	if c.ProductID <= 0 || c.ProductID > maxInt {
		fault("ProductID", fmt.Errorf("is %d: it is a number from 1 to %d", c.ProductID, maxInt))
	}
	if c.Key == nil {
		fault("Key", errors.New("is nil: give a function that finds a subject's license key, such as the cache's"))
	}
	if n := utf8.RuneCountInString(c.Object); n < 1 || n > maxName {
		fault("Object", fmt.Errorf("has %d characters: a data object's name has from 1 to %d", n, maxName))
	}
	return faults()
}

// Format prints the configuration without the token, whatever the verb.
func (c BalanceConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Token:[secret] ProductID:%d Object:%q Sole:%v BaseURL:%s}", c.ProductID, c.Object, c.Sole, shownURL(c.client()))
}

// LogValue is what [BalanceConfig.Format] prints.
func (c BalanceConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
