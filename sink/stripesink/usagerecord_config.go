package stripesink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/stripeapi"
)

// UsageRecordsConfig of a [UsageRecords]. The zero value is not usable: Key and Prices
// are required. fmt and log/slog print it without the key.
//
// Concurrency: a plain value; NewUsageRecords copies it.
type UsageRecordsConfig struct {
	// Key is a secret (sk_test_, sk_live_) or restricted (rk_test_, rk_live_) API key. A
	// restricted one needs write access to usage records, and read access to
	// subscriptions, and to prices for Prepare. Required.
	Key string `json:"-"`

	// Prices leads from a feature's name to the metered price that bills it, or to
	// several of which each customer has one, such as a monthly and a yearly one. Records
	// of a feature that is not in it stay pending. Required, not empty.
	Prices map[string][]string

	// Account is the ID of the Stripe account, such as "acct_1". It becomes part of the
	// sink's address, so that meter refuses a key of another account for what is owed to
	// this one; it is not sent. "": the mode alone is the address.
	Account string

	// BaseURL is where the API is. It must be https, except to this machine.
	// "": https://api.stripe.com.
	BaseURL string

	// HTTPClient is copied; the copy follows no redirects, keeps no cookies, sends
	// nothing twice and reads at most 1 MiB of a reply. Its transport must not retry.
	// nil: a client of the sink's own, with HTTP/1.1, TLS 1.2 or later, and the proxy of
	// the environment.
	HTTPClient *http.Client

	// Increment adds each record up, at the last second of its window, instead of setting
	// a second of its own. It is for subscriptions with billing thresholds, which take
	// nothing else, and for records with dimensions or of several subjects or features that
	// meet at one item. What is in doubt can then be sent again for 23 hours only.
	Increment bool

	// Instances is how many processes may count for the same customers, each with a
	// meter.Config.Instance of its own, from 0 on. It must be the same in all of them.
	// At most 60. 0: 1.
	Instances int

	// Late is what becomes of usage whose billing period is over when it could be
	// delivered. 0: QuarantineLate.
	Late Late

	// Logger is told of every record that was billed elsewhere than in its own second.
	// nil: slog.Default().
	Logger *slog.Logger

	// Mode is the one that Key must be of, so that a live key is refused in a test and a
	// test key in production. "": either.
	Mode Mode

	// SubjectMetadata is the metadata field of subscriptions that holds the subject, such
	// as "skm_key_id", for subjects that are no IDs of Stripe's. "": they are rejected.
	SubjectMetadata string
}

// Late says what becomes of usage whose billing period is over.
//
// Concurrency: a plain value.
type Late uint8

const (
	// QuarantineLate leaves it to a person: the record is rejected.
	QuarantineLate Late = iota
	// RestampLate bills it in the running period, and logs so: it is added up at a second
	// of that period, under an idempotency key. Only Sums, and only what surely was not
	// recorded before, for Stripe would not know it again, and only by an item that existed
	// when it was used; all else is rejected. What QuarantineLate has left to a person is
	// billed so once it is settled as Pending.
	RestampLate
)

const maxInstances = 60

func (c UsageRecordsConfig) withDefaults() UsageRecordsConfig {
	c.Prices = maps.Clone(c.Prices)
	for feature, prices := range c.Prices {
		c.Prices[feature] = slices.Clone(prices)
	}
	c.Instances = cmp.Or(c.Instances, 1)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c UsageRecordsConfig) validate() error {
	fault, faults := collect("UsageRecordsConfig")
	checkAccess(fault, c.Key, c.Mode, c.BaseURL)
	if len(c.Prices) == 0 {
		fault("Prices", errors.New("is empty: name the Stripe price of each feature to bill"))
	}
	of := map[string]string{}
	for _, feature := range slices.Sorted(maps.Keys(c.Prices)) {
		field := fmt.Sprintf("Prices[%q]", feature)
		if feature == "" {
			fault(field, errNoFeature)
		}
		if len(c.Prices[feature]) == 0 {
			fault(field, errors.New("is empty: name the Stripe price that bills it"))
		}
		for _, id := range c.Prices[feature] {
			fault(field, checkPrice(id))
			other, twice := of[id]
			of[id] = feature
			if twice && !c.Increment {
				fault(field, fmt.Errorf("has a price that is in Prices[%q], too: records of both would overwrite each other; give each a price of its own, or set Increment", other))
			}
		}
	}
	if c.Account != "" {
		fault("Account", stripeapi.CheckAccount(c.Account))
	}
	if c.Instances < 0 || c.Instances > maxInstances {
		fault("Instances", fmt.Errorf("is %d: use 0 (for 1) to %d", c.Instances, maxInstances))
	}
	if c.Late > RestampLate {
		fault("Late", fmt.Errorf("is %d: use QuarantineLate or RestampLate", c.Late))
	}
	fault("SubjectMetadata", stripeapi.CheckMetadata(c.SubjectMetadata))
	return faults()
}

var priceShape = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,255}$`) // plans of old, which are prices too, may have any name

// checkPrice refuses what is no price, without quoting it: it may be a key.
func checkPrice(id string) error {
	switch {
	case strings.HasPrefix(id, "prod_"):
		return errors.New(`has the ID of a product: use that of its price, which starts with "price_"`)
	case !priceShape.MatchString(id) || stripeapi.Clean(id, "") != id:
		return errors.New(`has something that is no ID of a price: it looks like "price_" and letters and digits`)
	}
	return nil
}

// Format prints the configuration without the key, whatever the verb.
func (c UsageRecordsConfig) Format(f fmt.State, _ rune) {
	clean := func(v any) string { return stripeapi.Clean(fmt.Sprint(v), c.Key) }
	fmt.Fprintf(f, "{Key:[key] Prices:%s Account:%s BaseURL:%s Increment:%t Instances:%d Late:%d Mode:%s SubjectMetadata:%s}",
		clean(c.Prices), clean(c.Account), clean(c.BaseURL), c.Increment, c.Instances, c.Late, clean(c.Mode), clean(c.SubjectMetadata))
}

// LogValue is what [UsageRecordsConfig.Format] prints.
func (c UsageRecordsConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
