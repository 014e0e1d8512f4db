package stripelicense

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
)

// Config of a [Checker]. Key is required. fmt and log/slog print it without secrets.
//
// Concurrency: a plain value; NewChecker copies it.
type Config struct {
	// Key is a secret (sk_test_, sk_live_) or restricted (rk_test_, rk_live_) API key. A
	// restricted one needs read access to subscriptions and, for Features, to
	// entitlements. Required.
	Key string `json:"-"`

	// BaseURL is where the API is. It must be https, except to this machine.
	// "": https://api.stripe.com.
	BaseURL string

	// Features leads from a feature's name to the lookup_key of the entitlement that it
	// needs; "" if a subscription is enough. The check of a feature that is not in it is
	// an error, so that a forgotten one is neither given away nor sold in vain; a query
	// without a feature asks for the subscription alone. Empty: no feature needs an
	// entitlement.
	Features map[string]string

	// HTTPClient is copied; the copy follows no redirects, keeps no cookies, sends
	// nothing twice and reads at most 1 MiB of a reply. Its transport must not
	// retry. nil: a client of the checker's own, with HTTP/1.1, TLS 1.2 or later, and
	// the proxy of the environment.
	HTTPClient *http.Client

	// KeyMetadata is the metadata field of subscriptions that holds the license key,
	// such as "license_key". The key then stands there in clear, and in the URL of each
	// search: who may read subscriptions, get their events, or see URLs in Stripe's log of
	// requests, in a proxy's or in the traces of HTTPClient, can use it. KeySecret avoids
	// that. Keys consist of up to 200 letters, digits and . _ : @ + / = -; others are not
	// found. "": callers are found by their subject only, and a key beside it is not looked
	// at, though a cache takes it for the subject's: don't bill by cache.Cache.Key then,
	// or let Identify leave the key out.
	KeyMetadata string

	// KeySecret, of 32 characters or more, says that KeyMetadata holds what [KeyDigest]
	// makes of the license key, and not the key. Any key will do then. "": it holds the
	// key.
	KeySecret string `json:"-"`

	// Mode is the one that Key must be of, so that a live key is refused in a test
	// and a test key in production. "": either.
	Mode Mode

	// PastDueFor is how long a subscription may be past due, from the start of its running
	// period, so that each period begins with as much. 0: for as long as Stripe tries to
	// collect the payment, after which it becomes unpaid or canceled, or stays past due,
	// as is set in Stripe.
	PastDueFor time.Duration

	// Products are the IDs of products, one of which a subscription must have. Empty: any
	// subscription of the customer counts.
	Products []string

	// RefusePaused denies, as unpaid, callers whose subscription has its collection
	// paused (pause_collection), which Stripe still calls active. false: they are allowed.
	RefusePaused bool

	// Statuses are those of subscriptions that are allowed: "active", which is required,
	// and any of "trialing", "past_due", "unpaid", "incomplete" and "paused".
	// Empty: active, trialing and past_due.
	Statuses []string

	// SubjectMetadata is the metadata field of subscriptions that holds the subject, for
	// hosts that authenticate their callers under names of their own. Subjects are
	// restricted as keys are. "": subjects are customers, "cus_…".
	SubjectMetadata string
}

// Mode is one of Stripe's two worlds: in one nobody pays, in the other somebody
// does. The zero value takes a key of either.
//
// Concurrency: a plain value.
type Mode string

const (
	TestMode Mode = "test" // keys sk_test_… and rk_test_…, also those of a sandbox
	LiveMode Mode = "live" // keys sk_live_… and rk_live_…
)

func (c Config) withDefaults() Config {
	if len(c.Statuses) == 0 {
		c.Statuses = []string{"active", "trialing", "past_due"}
	}
	return c
}

const (
	minSecret    = 32 // characters of KeySecret
	maxLookupKey = 80 // Stripe's limit, in characters
)

var (
	productID = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,255}$`) // vendors may choose them
	allowable = []string{"active", "trialing", "past_due", "unpaid", "incomplete", "paused"}
	final     = []string{"canceled", "incomplete_expired"}
)

func (c Config) validate() error {
	var faults []error
	fault := func(field string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("stripelicense: Config.%s %w", field, err))
		}
	}
	fault("Key", stripeapi.CheckKey(c.Key))
	if c.BaseURL != "" {
		fault("BaseURL", stripeapi.CheckURL(c.BaseURL))
	}
	for _, feature := range slices.Sorted(maps.Keys(c.Features)) {
		name := fmt.Sprintf("Features[%q]", stripeapi.Clean(feature, c.Key))
		if feature == "" {
			fault(name, errors.New("has no feature: use the name given to Meter.Feature"))
		}
		fault(name, checkLookupKey(c.Features[feature]))
	}
	fault("KeyMetadata", stripeapi.CheckMetadata(c.KeyMetadata))
	fault("KeySecret", c.checkSecret())
	fault("Mode", stripeapi.CheckMode(string(c.Mode), c.Key))
	if c.PastDueFor < 0 {
		fault("PastDueFor", fmt.Errorf(`is %v: must not be negative; leave "past_due" out of Statuses to refuse at once`, c.PastDueFor))
	}
	if c.PastDueFor > 0 && !slices.Contains(c.Statuses, "past_due") {
		fault("PastDueFor", errors.New(`has no effect: Statuses lacks "past_due"`))
	}
	for i, id := range c.Products {
		fault(fmt.Sprintf("Products[%d]", i), checkProduct(id))
	}
	c.checkStatuses(fault)
	fault("SubjectMetadata", stripeapi.CheckMetadata(c.SubjectMetadata))
	if c.SubjectMetadata != "" && c.SubjectMetadata == c.KeyMetadata {
		fault("SubjectMetadata", errors.New("is KeyMetadata, too: a license key is a secret, and a subject is not"))
	}
	return errors.Join(faults...)
}

func checkLookupKey(key string) error {
	switch n := len([]rune(key)); {
	case n > maxLookupKey:
		return fmt.Errorf("has a lookup_key of %d characters: Stripe takes at most %d", n, maxLookupKey)
	case strings.TrimSpace(key) != key:
		return errors.New("has a lookup_key that starts or ends with a space")
	}
	return nil
}

func (c Config) checkSecret() error {
	switch {
	case c.KeySecret == "":
		return nil
	case len(c.KeySecret) < minSecret:
		return fmt.Errorf("has %d characters: use %d random ones or more", len(c.KeySecret), minSecret)
	case c.KeyMetadata == "":
		return errors.New("has no effect: KeyMetadata is empty")
	}
	return nil
}

// checkProduct refuses what is no product, without quoting it: it may be a key.
func checkProduct(id string) error {
	switch {
	case strings.HasPrefix(id, "price_"):
		return errors.New(`is the ID of a price: use that of its product, which starts with "prod_" as a rule`)
	case !productID.MatchString(id) || stripeapi.Clean(id, "") != id:
		return errors.New(`is no ID of a product: it looks like "prod_" and letters and digits`)
	}
	return nil
}

func (c Config) checkStatuses(fault func(field string, err error)) {
	for i, status := range c.Statuses {
		if !slices.Contains(allowable, status) {
			fault(fmt.Sprintf("Statuses[%d]", i), fmt.Errorf("is %q: use any of %s; the others are final",
				stripeapi.Clean(status, c.Key), strings.Join(allowable, ", ")))
		}
	}
	if !slices.Contains(c.Statuses, "active") {
		fault("Statuses", errors.New(`lacks "active": nobody who pays would be allowed`))
	}
}

// Format prints the configuration without secrets, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	clean := func(v any) string { return stripeapi.Clean(fmt.Sprint(v), c.Key) }
	secret := ""
	if c.KeySecret != "" {
		secret = "[secret]"
	}
	fmt.Fprintf(f, "{Key:[key] BaseURL:%s Features:%s KeyMetadata:%s KeySecret:%s Mode:%s PastDueFor:%v Products:%s RefusePaused:%t Statuses:%s SubjectMetadata:%s}",
		clean(c.BaseURL), clean(c.Features), clean(c.KeyMetadata), secret, clean(c.Mode), c.PastDueFor, clean(c.Products),
		c.RefusePaused, clean(c.Statuses), clean(c.SubjectMetadata))
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
