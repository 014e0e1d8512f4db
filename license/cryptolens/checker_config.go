package cryptolens

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
)

const (
	// AnyAge, as Config.MaxAge: an answer counts however long ago it was signed.
	AnyAge time.Duration = -1
	// Perpetual, as Config.TimeLimited: licenses don't end at Expires.
	Perpetual = signed.Perpetual
)

// Config of a [Checker]. Token, ProductID and PublicKeys are required; another zero
// field has the default that is stated beside it. fmt and log/slog print it without
// the token.
//
// Concurrency: a plain value; NewChecker copies it.
type Config struct {
	// Token is an access token with the permission GetKey, and no other. Its feature
	// lock must not mask fields. Required.
	Token string `json:"-"`
	// ProductID is the product; licenses for others are refused. Required.
	ProductID int
	// PublicKeys are the <RSAKeyValue> XML from the account settings of Cryptolens; any
	// of them may have signed. A license server that signs by itself has its own. At
	// least 1024 bits, 2048 being usual. Required.
	PublicKeys []string

	// AllowHTTP, BaseURL, HTTPClient and Timeout are those of [ClientConfig].
	AllowHTTP  bool
	BaseURL    string
	HTTPClient *http.Client
	Timeout    time.Duration

	// Features leads from a feature to the number of its flag, 1 to 8 for F1 to F8.
	Features map[string]int
	// FeatureTemplate says that licenses list their features in the data object
	// cryptolens_features, as feature templates do: one that is neither there nor in
	// Features is denied. false: so it is for licenses with such a list, and others
	// entitle to every feature that is not in Features. A feature in a bundle has the
	// bundle in its name: "ModuleB.Submodule 1".
	FeatureTemplate bool
	// MaxAge is how long ago an answer may have been signed. Cryptolens signs when it is
	// asked; a license server on premises may answer from its memory, for days if so
	// configured. 0: 24 h. AnyAge.
	MaxAge time.Duration
	// Subject says who is billed for a license; never its key. It must be safe for
	// concurrent use. nil: its GlobalId, in digits.
	Subject func(License) string
	// TimeLimited is the flag, 1 to 8 for F1 to F8, of licenses that end at Expires;
	// those without it don't. 0: all end. Perpetual: none does.
	TimeLimited int
}

func (c Config) client() ClientConfig {
	return ClientConfig{Token: c.Token, AllowHTTP: c.AllowHTTP, BaseURL: c.BaseURL, HTTPClient: c.HTTPClient, Timeout: c.Timeout}
}

func (c Config) terms() signed.Terms {
	return signed.Terms{Features: maps.Clone(c.Features), FeatureTemplate: c.FeatureTemplate, Subject: c.Subject, TimeLimited: c.TimeLimited}
}

func (c Config) maxAge() time.Duration { return max(cmp.Or(c.MaxAge, 24*time.Hour), 0) }

// validate parses the public keys into keys.
func (c Config) validate(keys *signed.Keys) error {
	fault, faults := collect("Config")
	c.client().check(fault)
	if c.ProductID <= 0 || c.ProductID > maxInt {
		fault("ProductID", fmt.Errorf("is %d: use the number of the product, from 1 to %d", c.ProductID, maxInt))
	}
	if len(c.PublicKeys) == 0 {
		fault("PublicKeys", errors.New("is empty: nothing could be verified"))
	}
	for i, text := range c.PublicKeys {
		fault(fmt.Sprintf("PublicKeys[%d]", i), keys.Add(text))
	}
	if c.MaxAge < 0 && c.MaxAge != AnyAge {
		fault("MaxAge", fmt.Errorf("is %v: use a time, 0 for 24 h, or cryptolens.AnyAge", c.MaxAge))
	}
	c.terms().Validate(fault)
	return faults()
}

// Format prints the configuration without the token, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Token:[secret] ProductID:%d AllowHTTP:%v BaseURL:%s Timeout:%v Features:%v FeatureTemplate:%v MaxAge:%v TimeLimited:%d}",
		c.ProductID, c.AllowHTTP, shownURL(c.client()), c.Timeout, c.Features, c.FeatureTemplate, c.MaxAge, c.TimeLimited)
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
