package stripesink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"

	"github.com/inprocess/meter/internal/stripeapi"
)

// ErrDiffers says that Stripe has what was to be made, but not as configured.
// Nothing was changed.
var ErrDiffers = errors.New("stripesink: what Stripe has differs from the configuration")

// ProvisionConfig says what [Provision] makes or finds. Key, Product, Currency and
// Tariffs are required. fmt and log/slog print it without the key.
//
// Concurrency: a plain value; it is not changed.
type ProvisionConfig struct {
	// Key is as in [Config]. A restricted key needs write access to products,
	// prices and billing meters.
	Key string `json:"-"`

	// Product is what is sold; all prices belong to it.
	Product Product

	// Currency of all amounts, as Stripe writes it: "usd", "eur", "jpy". One, for
	// Stripe bills a customer in a single currency.
	Currency string

	// Tariffs leads from a feature's name to what it costs. Not empty.
	Tariffs map[string]Tariff

	BaseURL    string       // as in Config
	HTTPClient *http.Client // as in Config
	Mode       Mode         // as in Config
}

// Product is something that a vendor sells.
//
// Concurrency: a plain value.
type Product struct {
	ID   string // chosen by you, at most 100 letters, digits, "-" and "_"; required
	Name string // as customers read it on invoices; required

	// CryptolensID is the ID of the Cryptolens product whose keys a subscription
	// pays for; it becomes the metadata field skm_product_id. 0: none.
	CryptolensID int64
}

// Provisioned is what [Provision] found or made.
//
// Concurrency: a plain value.
type Provisioned struct {
	Product string            // its ID
	Prices  map[string]string // by feature: the price's ID, "price_…"
	Meters  map[string]Meter  // by feature, for Config.Meters; features with a legacy price are not in it
	Created []string          // what was not there before, in words; nil: nothing was missing
}

// Provision makes a product with its prices and billing meters, or finds them: what
// a vendor otherwise does by hand in Stripe's dashboard. A product is found by its
// ID, a meter by its event name, and a price by its lookup key.
//
// Guarantee: it can be repeated, also after a crash or an error and by two processes
// at once, and makes nothing twice. All is read and compared before anything is
// made; where something differs, nothing is. What is missing is made under an
// Idempotency-Key that its content yields, and Stripe itself takes a product's ID, a
// lookup key and the event name of an active meter only once.
//
// What is not verified: for how long Stripe goes on to make legacy prices for the API
// version of this SDK (2023-10-16; versions from 2025-03-31 on refuse them), and
// whether that version makes meters of formula last.
//
// Blocking: two or three requests for each thing to find or make, one after another,
// each at most 20 s, within ctx.
// Errors: all faults of the configuration, by field name; [ErrDiffers] with every
// difference; else the first request that failed, and what was made before it is in
// Created and found by the next call. No error holds the key.
func Provision(ctx context.Context, cfg ProvisionConfig) (Provisioned, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Provisioned{}, err
	}
	api := stripeapi.New(cfg.BaseURL, cfg.HTTPClient)
	defer api.Close()
	p := newProvisioner(cfg, api)
	err := rounds(func(round int) error { return p.run(ctx, round) })
	return p.made, err
}

func (c ProvisionConfig) withDefaults() ProvisionConfig {
	c.Tariffs = maps.Clone(c.Tariffs)
	for feature, t := range c.Tariffs {
		c.Tariffs[feature] = t.withDefaults(c.Product.ID + "-" + feature)
	}
	return c
}

var (
	productID    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	currencyCode = regexp.MustCompile(`^[a-z]{3}$`)
)

func (c ProvisionConfig) validate() error {
	fault, faults := collect("ProvisionConfig")
	checkAccess(fault, c.Key, c.Mode, c.BaseURL)
	if !productID.MatchString(c.Product.ID) {
		fault("Product.ID", errors.New(`is no ID: choose one of at most 100 letters, digits, "-" and "_"`))
	}
	if c.Product.Name == "" {
		fault("Product.Name", errors.New("is empty: it stands on invoices"))
	}
	if c.Product.CryptolensID < 0 {
		fault("Product.CryptolensID", errors.New("is negative: use the product's ID, or 0 for none"))
	}
	if !currencyCode.MatchString(c.Currency) {
		fault("Currency", errors.New(`is no currency: use three lower-case letters, such as "usd"`))
	}
	if len(c.Tariffs) == 0 {
		fault("Tariffs", errors.New("is empty: say what each feature costs"))
	}
	lookupKeys, eventNames := map[string]string{}, map[string]string{}
	for _, feature := range slices.Sorted(maps.Keys(c.Tariffs)) {
		t, field := c.Tariffs[feature], fmt.Sprintf("Tariffs[%q]", feature)
		if feature == "" {
			fault(field, errNoFeature)
		}
		t.validate(field, fault)
		if other, taken := lookupKeys[t.LookupKey]; taken {
			fault(field+".LookupKey", fmt.Errorf("is that of feature %q, too: it must name one price", other))
		}
		lookupKeys[t.LookupKey] = feature
		if t.legacy() {
			continue
		}
		if other, taken := eventNames[t.Meter.EventName]; taken {
			fault(field+".Meter.EventName", fmt.Errorf("is that of feature %q, too: a customer of both would pay all usage twice", other))
		}
		eventNames[t.Meter.EventName] = feature
	}
	return faults()
}

// Format prints the configuration without the key, whatever the verb.
func (c ProvisionConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Key:[key] Product:%+v Currency:%s Tariffs:%+v BaseURL:%s Mode:%s}", c.Product,
		stripeapi.Clean(c.Currency, c.Key), c.Tariffs, stripeapi.Clean(c.BaseURL, c.Key), stripeapi.Clean(string(c.Mode), c.Key))
}

// LogValue is what [ProvisionConfig.Format] prints.
func (c ProvisionConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
