package stripesink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"

	"github.com/inprocess/meter/internal/stripeapi"
)

// ErrCurrency says that a customer would have to pay in a second currency, which
// Stripe refuses.
var ErrCurrency = errors.New("stripesink: Stripe bills a customer in one currency")

// ErrSubscribed says that the customer has another subscription that bills the same
// usage, so that one more would bill it twice.
var ErrSubscribed = errors.New("stripesink: the customer is subscribed otherwise")

// SubscribeConfig says whom [Subscribe] subscribes to what. Key, Customer and Prices
// are required. fmt and log/slog print it without the key.
//
// Concurrency: a plain value; it is not changed.
type SubscribeConfig struct {
	// Key is as in [Config]. A restricted key needs write access to subscriptions,
	// and read access to customers and prices.
	Key string `json:"-"`

	Customer string   // the customer's ID, "cus_…"
	Prices   []string // the prices' IDs, as in Provisioned.Prices; each once

	// LicenseKeyID is the ID (not the secret) of the license key that the subscription
	// pays for; it becomes the metadata field skm_key_id. A customer may have one
	// subscription for each license key. "": one subscription for the customer.
	LicenseKeyID string

	BaseURL    string       // as in Config
	HTTPClient *http.Client // as in Config
	Mode       Mode         // as in Config
}

// Subscribed is the subscription that [Subscribe] found or made.
//
// Concurrency: a plain value.
type Subscribed struct {
	ID    string            // "sub_…"
	Items map[string]string // from each price to the subscription item, "si_…"
	Found bool              // it was there before
}

// Subscribe subscribes a customer to prices, or finds the subscription that does: a
// running one that has all the prices and, if LicenseKeyID is set, belongs to that
// license key.
//
// Guarantee: it can be repeated, also after a crash or an error and by two processes
// at once, and makes no second subscription. It refuses what would bill wrongly
// before Stripe is asked to: a second currency, a subscription with only some of the
// prices, a second price on a billing meter that the customer already pays for.
//
// Blocking: one request for each price and a few more, one after another, each at
// most 20 s, within ctx.
// Errors: all faults of the configuration, by field name; [ErrCurrency];
// [ErrSubscribed]; else the first request that failed. No error holds the key.
func Subscribe(ctx context.Context, cfg SubscribeConfig) (Subscribed, error) {
	cfg.Prices = slices.Clone(cfg.Prices)
	if err := cfg.validate(); err != nil {
		return Subscribed{}, err
	}
	api := stripeapi.New(cfg.BaseURL, cfg.HTTPClient)
	defer api.Close()
	s := newSubscriber(cfg, api)
	if err := s.check(ctx); err != nil {
		return Subscribed{}, err
	}
	var done Subscribed
	err := rounds(func(round int) (err error) {
		done, err = s.run(ctx, round)
		return err
	})
	return done, err
}

var (
	priceID      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	licenseKeyID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,500}$`)
)

func (c SubscribeConfig) validate() error {
	fault, faults := collect("SubscribeConfig")
	checkAccess(fault, c.Key, c.Mode, c.BaseURL)
	if !customerID.MatchString(c.Customer) {
		fault("Customer", errors.New(`is no customer ID: it looks like "cus_…"`))
	}
	if len(c.Prices) == 0 {
		fault("Prices", errors.New("is empty: name the prices, as Provisioned.Prices does"))
	}
	for i, id := range c.Prices {
		field := fmt.Sprintf("Prices[%d]", i)
		if !priceID.MatchString(id) {
			fault(field, errors.New(`is no price ID: it looks like "price_…"`))
		}
		if slices.Contains(c.Prices[:i], id) {
			fault(field, errors.New("is there twice"))
		}
	}
	if c.LicenseKeyID != "" && !licenseKeyID.MatchString(c.LicenseKeyID) {
		fault("LicenseKeyID", errors.New(`is no ID: use letters, digits, ".", "-" and "_"; never the key itself`))
	}
	return faults()
}

// Format prints the configuration without the key, whatever the verb.
func (c SubscribeConfig) Format(f fmt.State, _ rune) {
	text := fmt.Sprintf("Customer:%s Prices:%v LicenseKeyID:%s BaseURL:%s Mode:%s", c.Customer, c.Prices, c.LicenseKeyID, c.BaseURL, c.Mode)
	fmt.Fprintf(f, "{Key:[key] %s}", stripeapi.Clean(text, c.Key))
}

// LogValue is what [SubscribeConfig.Format] prints.
func (c SubscribeConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
