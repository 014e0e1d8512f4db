package stripesink

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/inprocess/meter/internal/stripeapi"
)

// Config of a [Sink]. The zero value is not usable: Key and Meters are required.
// fmt and log/slog print it without the key.
//
// Concurrency: a plain value; New copies it.
type Config struct {
	// Key is a secret (sk_test_, sk_live_) or restricted (rk_test_, rk_live_) API
	// key. A restricted one needs write access to billing meter events; read access to
	// billing meters for Prepare, Usage, Verify and Reconcile; write access to billing
	// meter event adjustments for Void; and read access to events for Webhook. Required.
	Key string `json:"-"`

	// Meters leads from a feature's name to the Stripe meter that bills it.
	// Records of a feature that is not in it stay pending. Two features of kind Sum
	// may share a meter; their events for one customer are sent one after another.
	// Required, not empty.
	Meters map[string]Meter

	// Account is the ID of the Stripe account, such as "acct_1". It becomes part
	// of the sink's address, so that meter refuses a key of another account for
	// what is owed to this one; it is not sent. "": the mode alone is the address.
	Account string

	// BaseURL is where the API is. It must be https, except to this machine.
	// "": https://api.stripe.com.
	BaseURL string

	// HTTPClient is copied; the copy follows no redirects, keeps no cookies, sends
	// nothing twice and reads at most 1 MiB of a reply. Its transport must not
	// retry. nil: a client of the sink's own, with HTTP/1.1, TLS 1.2 or later, and
	// the proxy of the environment.
	HTTPClient *http.Client

	// SoleWriter says that nothing but this one meter, with its one directory, sends
	// events for these customers and meters: no second process, no script, nobody by
	// hand. Only then can [Sink.Verify] tell a record by what Stripe has counted. If
	// it is not true, Verify may bill a record twice, or never. false: Verify leaves
	// every record in doubt.
	SoleWriter bool

	// SubjectMetadata is the metadata field of subscriptions that holds the subject, such
	// as "skm_key_id". A subject that is no customer ID is then looked up, and billed as
	// the customer of the one subscription that it leads to; "sub_…" and "si_…" lead to
	// theirs. A restricted key needs read access to subscriptions. Several subjects may
	// then lead to one customer, so Verify leaves every record in doubt. "": only
	// customer IDs are subjects.
	SubjectMetadata string

	// Mode is the one that Key must be of, so that a live key is refused in a test
	// and a test key in production. "": either.
	Mode Mode
}

// Meter names a Stripe billing meter. Only EventName is required.
//
// Concurrency: a plain value.
type Meter struct {
	EventName   string // event_name of the meter, at most 100 characters
	CustomerKey string // customer_mapping.event_payload_key; "": "stripe_customer_id"
	ValueKey    string // value_settings.event_payload_key; "": "value"
}

func (m Meter) withDefaults() Meter {
	m.CustomerKey = cmp.Or(m.CustomerKey, "stripe_customer_id")
	m.ValueKey = cmp.Or(m.ValueKey, "value")
	return m
}

// maxName is Stripe's limit for event names and identifiers, in characters.
const maxName = 100

func (c Config) validate() error {
	fault, faults := collect("Config")
	checkAccess(fault, c.Key, c.Mode, c.BaseURL)
	if len(c.Meters) == 0 {
		fault("Meters", errors.New("is empty: name the Stripe meter of each feature to bill"))
	}
	for _, feature := range slices.Sorted(maps.Keys(c.Meters)) {
		field := fmt.Sprintf("Meters[%q]", feature)
		if feature == "" {
			fault(field, errNoFeature)
		}
		c.Meters[feature].validate(field, fault)
	}
	fault("SubjectMetadata", stripeapi.CheckMetadata(c.SubjectMetadata))
	if c.Account != "" {
		fault("Account", stripeapi.CheckAccount(c.Account))
	}
	return faults()
}

var errNoFeature = errors.New("has no feature: use the name given to Meter.Feature")

// validate notes the meter's faults under the name of its field.
func (m Meter) validate(field string, fault func(string, error)) {
	m = m.withDefaults()
	fault(field+".EventName", checkEventName(m.EventName))
	fault(field+".CustomerKey", checkPayloadKey(m.CustomerKey))
	fault(field+".ValueKey", checkPayloadKey(m.ValueKey))
	if m.CustomerKey == m.ValueKey {
		fault(field, fmt.Errorf("has %q as both CustomerKey and ValueKey: they must differ", m.ValueKey))
	}
}

func checkEventName(name string) error {
	switch n := len([]rune(name)); {
	case n == 0:
		return errors.New("is empty: use the meter's event_name")
	case n > maxName:
		return fmt.Errorf("has %d characters: Stripe takes at most %d", n, maxName)
	}
	return nil
}

// checkPayloadKey refuses what the form encoding payload[key]=… can't carry.
func checkPayloadKey(key string) error {
	if key == "" || strings.ContainsAny(key, "[]") {
		return fmt.Errorf("is %q: a payload key is not empty and has no brackets", key)
	}
	return nil
}

// Format prints the configuration without the key, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Key:[key] Meters:%+v Account:%s BaseURL:%s Mode:%s SubjectMetadata:%s}",
		c.Meters, stripeapi.Clean(c.Account, c.Key), stripeapi.Clean(c.BaseURL, c.Key), stripeapi.Clean(string(c.Mode), c.Key),
		stripeapi.Clean(c.SubjectMetadata, c.Key))
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Format prints the sink's address, whatever the verb.
func (s *Sink) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.Address()) }

// LogValue is the sink's address.
func (s *Sink) LogValue() slog.Value { return slog.StringValue(s.Address()) }
