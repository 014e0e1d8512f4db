package cryptolenssink

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// CountersConfig of [Counters]. The zero value is not usable: Token, ProductID, Key and
// Objects are required. fmt and log/slog print it without the token.
//
// Concurrency: a plain value; NewCounters copies it.
type CountersConfig struct {
	// Token is an access token with the permissions ListDataObject, AddDataObject,
	// SetStringValue and IncrementIntValue and, for features of kind Last,
	// SetIntValue. Required.
	Token string `json:"-"`

	// ProductID is the product that all keys belong to. Required.
	ProductID int

	// Key finds the license key of a subject. Required.
	Key KeyFunc `json:"-"`

	// Objects leads from a feature's name to that of the data object that counts it,
	// at most 80 characters. Each feature has one of its own, and none is another's name
	// with a number, such as "reports-1" beside "reports", for instances have these;
	// records of features that are not in it stay pending. Required, not empty.
	Objects map[string]string

	// AllowHTTP takes a BaseURL with http:// that leads to another machine, as a
	// license server in one's own network has. The token and the keys then travel in
	// clear.
	AllowHTTP bool

	// BaseURL is where the API is, without "/api". "": https://api.cryptolens.io.
	BaseURL string

	// HTTPClient is copied, as in Config. nil: a client of the sink's own.
	HTTPClient *http.Client `json:"-"`

	// Rate is the most records a second, each of which takes about four calls. 0: 10.
	Rate float64
}

// maxObject leaves room for what an instance adds to a name.
const maxObject = 80

func (c CountersConfig) validate() error {
	v := &faults{of: "CountersConfig"}
	v.access(c.Token, c.ProductID, c.Key, c.BaseURL, c.AllowHTTP, c.Rate)
	if len(c.Objects) == 0 {
		v.add("Objects", errors.New("is empty: name the data object of each feature to count"))
	}
	owner := map[string]string{}
	for _, feature := range slices.Sorted(maps.Keys(c.Objects)) {
		field, object := fmt.Sprintf("Objects[%q]", feature), c.Objects[feature]
		if feature == "" {
			v.add(field, errNoFeature)
		}
		if n := utf8.RuneCountInString(object); n < 1 || n > maxObject {
			v.add(field, fmt.Errorf("has %d characters: a data object's name has from 1 to %d here", n, maxObject))
		}
		if other, taken := owner[object]; taken {
			v.add(field, fmt.Errorf("is %q, like that of feature %q: each needs a data object of its own", object, other))
		}
		owner[object] = feature
	}
	for _, feature := range slices.Sorted(maps.Keys(c.Objects)) {
		object := c.Objects[feature]
		base := strings.TrimRight(object, "0123456789")
		if base == object || !strings.HasSuffix(base, "-") {
			continue
		}
		base = strings.TrimSuffix(base, "-")
		if other, taken := owner[base]; taken {
			v.add(fmt.Sprintf("Objects[%q]", feature), fmt.Errorf("is %q, as an instance of feature %q would name its %q: end it in another way", object, other, base))
		}
	}
	return errors.Join(v.list...)
}

// Format prints the configuration without the token, whatever the verb.
func (c CountersConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Token:[secret] ProductID:%d BaseURL:%s Objects:%v Rate:%v}", c.ProductID, shown(c.BaseURL), c.Objects, c.Rate)
}

// LogValue is what [CountersConfig.Format] prints.
func (c CountersConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
