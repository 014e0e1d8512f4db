package cryptolenssink

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	wire "github.com/inprocess/meter/internal/cryptolens"
	"github.com/inprocess/meter/license/cryptolens"
)

// Doubt says what becomes of usage of which nobody knows whether it was recorded. Each
// choice has its price; there is none without.
//
// Concurrency: a plain value.
type Doubt uint8

const (
	// Quarantine has a person decide. Nothing is billed twice or never, and counts
	// wait until somebody has looked at Stripe.
	Quarantine Doubt = iota
	// Resend sends it again until the API confirms: nothing is lost, and what was
	// recorded without an answer is billed twice, or more often.
	Resend
	// Assume takes it for recorded: nothing is billed twice, and what was lost on the
	// way is never billed. So is what a process that is killed was about to send, at
	// most four records.
	Assume
)

// String returns "quarantine", "resend" or "assume".
func (d Doubt) String() string {
	switch d {
	case Quarantine:
		return "quarantine"
	case Resend:
		return "resend"
	case Assume:
		return "assume"
	}
	return "unknown"
}

// defaultRate is how many records a second are sent if nothing else is said.
const defaultRate = 10

// requestTimeout bounds one call.
const requestTimeout = 20 * time.Second

// Config of a [Sink]. The zero value is not usable: Token, ProductID, Key and
// Features are required. fmt and log/slog print it without the token.
//
// Concurrency: a plain value; New copies it.
type Config struct {
	// Token is an access token with the permission Subscription. Required.
	Token string `json:"-"`

	// ProductID is the product that all keys belong to. Required.
	ProductID int

	// Key finds the license key of a subject. Required.
	Key KeyFunc `json:"-"`

	// AllowHTTP takes a BaseURL with http:// that leads to another machine, as a
	// license server in one's own network has. The token and the keys then travel in
	// clear.
	AllowHTTP bool

	// BaseURL is where the API is, without "/api". "": https://api.cryptolens.io.
	BaseURL string

	// Doubt says what becomes of usage in doubt. 0: Quarantine.
	Doubt Doubt

	// Features are those that are billed, and that add up on one number if they are
	// several; records of others stay pending. Required, not empty.
	Features []string

	// HTTPClient is copied; the copy follows no redirects, keeps no cookies, sends
	// nothing twice and reads at most 1 MiB of a reply. Its transport must not retry.
	// nil: a client of the sink's own.
	HTTPClient *http.Client `json:"-"`

	// Rate is the most records a second. 0: 10.
	Rate float64
}

func (c Config) validate() error {
	v := &faults{of: "Config"}
	v.access(c.Token, c.ProductID, c.Key, c.BaseURL, c.AllowHTTP, c.Rate)
	if c.Doubt > Assume {
		v.add("Doubt", fmt.Errorf("is %d: use Quarantine, Resend or Assume", c.Doubt))
	}
	if len(c.Features) == 0 {
		v.add("Features", errors.New("is empty: name the features that are billed, as given to Meter.Feature"))
	}
	if slices.Contains(c.Features, "") {
		v.add("Features", errNoFeature)
	}
	return errors.Join(v.list...)
}

var errNoFeature = errors.New("has an empty name: use the one given to Meter.Feature")

// Format prints the configuration without the token, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Token:[secret] ProductID:%d BaseURL:%s Doubt:%v Features:%q Rate:%v}", c.ProductID, shown(c.BaseURL), c.Doubt, c.Features, c.Rate)
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// shown is a base URL, unless it may hold a secret.
func shown(baseURL string) string {
	if baseURL != "" && wire.CheckURL(baseURL, true) != nil {
		return "(faulty)"
	}
	return baseURL
}

// faults collects what is wrong with a configuration, by field.
type faults struct {
	of   string
	list []error
}

func (v *faults) add(field string, err error) {
	if err != nil {
		v.list = append(v.list, fmt.Errorf("cryptolenssink: %s.%s %w", v.of, field, err))
	}
}

// access checks what both sinks have in common.
func (v *faults) access(token string, product int, key KeyFunc, baseURL string, plain bool, rate float64) {
	v.add("Token", wire.CheckToken(token))
	if product <= 0 || product > math.MaxInt32 {
		v.add("ProductID", errors.New("is "+strconv.Itoa(product)+": use the product's number, as the dashboard shows it"))
	}
	if key == nil {
		v.add("Key", errors.New("is nil: set it to what finds the license key of a subject, such as the cache's Key"))
	}
	if baseURL != "" {
		v.add("BaseURL", wire.CheckURL(baseURL, plain))
	}
	if !(rate >= 0) || math.IsInf(rate, 0) { // NaN, too
		v.add("Rate", fmt.Errorf("is %v: use records a second, or 0 for %d", rate, defaultRate))
	}
}

func newClient(token, baseURL string, plain bool, over *http.Client) *cryptolens.Client {
	return cryptolens.NewClient(cryptolens.ClientConfig{
		Token: token, AllowHTTP: plain, BaseURL: baseURL, HTTPClient: over, Timeout: requestTimeout,
	})
}
