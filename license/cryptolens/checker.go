package cryptolens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
	"github.com/inprocess/meter/license"
)

var _ license.Checker = (*Checker)(nil)

// Errors of an answer that came, and can't be believed or used. To a [Checker] they
// mean unknown, like those of the [Client].
var (
	ErrMalformed = signed.ErrMalformed // it holds no license
	ErrISODates  = signed.ErrISODates  // from before 2017-05
	ErrSignature = signed.ErrSignature // signed by none of the public keys, or changed since
	ErrProduct   = signed.ErrProduct   // a license for another product
	ErrKey       = signed.ErrKey       // a license of another key than was asked for
	ErrTooOld    = signed.ErrTooOld    // signed longer than Config.MaxAge ago
	ErrReplayed  = signed.ErrReplayed  // older than an answer that had come before the question
	ErrClock     = signed.ErrClock     // signed more than an hour from now
	ErrMasked    = signed.ErrMasked    // a field that is needed is not in the license
	ErrTemplate  = signed.ErrTemplate  // its data object cryptolens_features can't be read
)

// License is what Cryptolens has signed: what Config.Subject is given. Its Key is a
// secret.
//
// Concurrency: read-only.
type License = signed.License

// Checker is a [license.Checker] that asks for the license of a key, by GetKey, at
// every check. It never activates: machines are registered, and the time of licenses
// that start at their activation begins, by [Client.Activate] alone. Make it with
// [NewChecker].
//
// Concurrency: safe.
type Checker struct {
	cfg    Config
	fault  error
	client *Client
	keys   signed.Keys
	guard  *signed.Guard
	terms  signed.Terms
}

// NewChecker returns a checker with a copy of cfg. It does no input or output. If cfg
// is faulty, Validate and every Check say how.
func NewChecker(cfg Config) *Checker {
	c := &Checker{cfg: cfg, client: NewClient(cfg.client()), guard: signed.NewGuard(cfg.maxAge()), terms: cfg.terms()}
	c.fault = cfg.validate(&c.keys)
	return c
}

// Check asks for the license of q.Key, verifies it, and says what it allows. Denied are:
//
//	NoKey        a query without a key; its Subject is not looked at
//	NotFound     Cryptolens does not know the key, or not in these upper and lower case
//	             letters
//	Blocked      the license, or the key, is blocked
//	Expired      the license has ended; see Config.TimeLimited
//	NotEntitled  the feature is off, or q.Machine is none of the machines that the
//	             license was activated for
//
// in this order, if several apply. A license without a limit of machines allows any,
// and so does every license for a query without a machine. Until is the license's
// Expires, by the later of this machine's clock and the newest SignDate seen.
//
// Guarantee: nothing is allowed but by a license that one of the public keys has
// signed, for this product and key, at most MaxAge ago, and no earlier than another
// one that had come when this one was asked for. The latter is known of the 100,000
// keys used last, and not after a restart. That there is no such key nobody signs: it
// is believed to whoever answers.
// Blocking: until the API has answered, ctx ends or Config.Timeout passes.
// Errors: unknown, never denied: those of [Client.GetKey], except for ErrNoKey and
// ErrBlocked; of an answer that can't be believed, the named errors of this package;
// Subject names nobody, or the key; those of Validate.
func (c *Checker) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	if c.fault != nil {
		return license.Verdict{}, c.fault
	}
	if q.Key.IsZero() {
		return denied(license.NoKey)
	}
	since := c.guard.Newest(q.Key)
	answer, err := c.client.GetKey(ctx, c.cfg.ProductID, q.Key)
	switch {
	case errors.Is(err, ErrNoKey):
		return denied(license.NotFound)
	case errors.Is(err, ErrBlocked):
		return denied(license.Blocked)
	case err != nil:
		return license.Verdict{}, err
	}
	v, err := c.judge(answer, q, since, time.Now())
	if err != nil {
		return license.Verdict{}, fmt.Errorf("cryptolens: GetKey: %w", err)
	}
	return v, nil
}

func denied(why license.Reason) (license.Verdict, error) {
	return license.Verdict{Status: license.Denied, Reason: why}, nil
}

// judge says what an answer allows, if it is one to be believed.
func (c *Checker) judge(answer Signed, q license.Query, since, now time.Time) (license.Verdict, error) {
	l, err := c.keys.OpenParts(answer.LicenseKey, answer.Signature)
	if err != nil {
		return license.Verdict{}, err
	}
	if err := l.Bind(c.cfg.ProductID, q.Key); err != nil {
		if errors.Is(err, ErrKey) && strings.EqualFold(l.Key.Reveal(), q.Key.Reveal()) {
			return denied(license.NotFound)
		}
		return license.Verdict{}, err
	}
	if err := c.guard.Admit(l, since, now); errors.Is(err, ErrTooOld) {
		return license.Verdict{}, fmt.Errorf("%w; or the clock of this machine is ahead", err)
	} else if err != nil {
		return license.Verdict{}, err
	}
	return c.terms.Verdict(l, q, c.guard.Now(now))
}

// Validate returns all faults of the configuration, each by the name of its field. It
// uses no network.
//
// Errors: one per fault, joined; never with the token in it.
func (c *Checker) Validate() error { return c.fault }

// Address is "cryptolens:" and the product, whose keys it checks. "" if the Config is
// faulty.
func (c *Checker) Address() string {
	if c.fault != nil {
		return "" // who knows what stands where
	}
	return fmt.Sprintf("cryptolens:%d", c.cfg.ProductID)
}

// Close drops idle connections, unless Config.HTTPClient was given. The checker stays
// usable.
//
// Errors: none.
func (c *Checker) Close() error { return c.client.Close() }

// Format prints where the checker asks, whatever the verb.
func (c *Checker) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.client.shown) }

// LogValue is what [Checker.Format] prints.
func (c *Checker) LogValue() slog.Value { return slog.StringValue(c.client.shown) }

// Verify says what was signed, for those who call [Client.GetKey] or [Client.Activate]
// themselves. One of publicKeys, in the XML of Cryptolens, must have signed it, for
// this product and key. How long ago, and what it allows, is theirs to look at.
//
// Errors: ErrMalformed, ErrISODates, ErrSignature, ErrProduct, ErrKey; what is wrong
// with a public key.
func (s Signed) Verify(productID int, key license.Key, publicKeys ...string) (License, error) {
	var keys signed.Keys
	for i, text := range publicKeys {
		if err := keys.Add(text); err != nil {
			return License{}, fmt.Errorf("cryptolens: public key %d of %d %w", i+1, len(publicKeys), err)
		}
	}
	l, err := keys.OpenParts(s.LicenseKey, s.Signature)
	if err == nil {
		err = l.Bind(productID, key)
	}
	if err != nil {
		return License{}, fmt.Errorf("cryptolens: %w", err)
	}
	return *l, nil
}
