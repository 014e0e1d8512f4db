package offline

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/inprocess/meter/internal/cryptolens/signed"
)

const (
	// AnyAge, as Config.MaxAge: a license counts until its own Expires, and can't be
	// taken back.
	AnyAge time.Duration = -1
	// NoReload, as Config.Reload: files are read once.
	NoReload time.Duration = -1
	// Perpetual, as Config.TimeLimited: licenses don't end at Expires.
	Perpetual = signed.Perpetual
)

// Config configures a [Checker]. [New] copies it. Files, MaxAge, ProductID and
// PublicKeys are required; another zero field has the default that is stated beside it.
//
// Concurrency: a plain value.
type Config struct {
	// Files hold the licenses: os.DirFS for a directory, or an embed.FS. Names should
	// not contain keys; what looks like one is shown as [key].
	Files fs.FS
	// MaxAge is how long after it was signed a license counts. AnyAge: for ever. There
	// is no default: it is how long a customer keeps what you have taken back, and how
	// soon they must get a new file.
	MaxAge time.Duration
	// ProductID is the Cryptolens product. Licenses for others are refused.
	ProductID int
	// PublicKeys are the <RSAKeyValue> XML from the account settings of Cryptolens; any
	// of them may have signed. At least 1024 bits, 2048 being usual.
	PublicKeys []string

	// Features leads from a feature to the number of its flag, 1 to 8 for F1 to F8.
	Features map[string]int
	// FeatureTemplate says that licenses list their features in the data object
	// cryptolens_features: one that is neither there nor in Features is denied. false:
	// so it is for licenses with such a list, and others entitle to every feature that
	// is not in Features.
	FeatureTemplate bool
	// Pattern of the names of files at the root of Files, as for path.Match. "": *.skm.
	Pattern string
	// Reload is how often files are read. 0: every minute. NoReload: once.
	Reload time.Duration
	// State is a file to keep, across restarts, the latest time known and the date of
	// the newest license of each key; the package comment says what for. Its
	// directory must exist. "": they are forgotten.
	State string
	// Subject says who is billed for a license; never its key. nil: its GlobalId.
	Subject func(License) string
	// TimeLimited is the flag, 1 to 8 for F1 to F8, of licenses that end at Expires;
	// those without it don't. 0: all end. Perpetual: none does.
	TimeLimited int
}

func (c Config) withDefaults() Config {
	c.Features, c.PublicKeys = maps.Clone(c.Features), slices.Clone(c.PublicKeys)
	if c.Pattern == "" {
		c.Pattern = "*.skm"
	}
	if c.Reload == 0 {
		c.Reload = time.Minute
	}
	return c
}

func (c *Config) terms() signed.Terms {
	return signed.Terms{Features: c.Features, FeatureTemplate: c.FeatureTemplate, Subject: c.Subject, TimeLimited: c.TimeLimited}
}

// validate expects defaults to be filled in. It parses the keys into keys.
func (c *Config) validate(keys *signed.Keys) error {
	var faults []error
	fault := func(field string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("offline: Config.%s %w", field, err))
		}
	}
	if c.Files == nil {
		fault("Files", errors.New("is nil: use os.DirFS for a directory"))
	}
	switch {
	case c.MaxAge == 0:
		fault("MaxAge", errors.New("is 0: say how long a license counts after it was signed, or offline.AnyAge"))
	case c.MaxAge < 0 && c.MaxAge != AnyAge:
		fault("MaxAge", fmt.Errorf("is %v: use a time, or offline.AnyAge", c.MaxAge))
	}
	if c.ProductID <= 0 {
		fault("ProductID", fmt.Errorf("is %d: use the number of the product in Cryptolens", c.ProductID))
	}
	if len(c.PublicKeys) == 0 {
		fault("PublicKeys", errors.New("is empty: nothing could be verified"))
	}
	for i, text := range c.PublicKeys {
		fault(fmt.Sprintf("PublicKeys[%d]", i), keys.Add(text))
	}
	if _, err := path.Match(c.Pattern, ""); err != nil {
		fault("Pattern", fmt.Errorf("is %q: %w", c.Pattern, err))
	}
	if c.Reload < 0 && c.Reload != NoReload {
		fault("Reload", fmt.Errorf("is %v: use a time, 0 for a minute, or offline.NoReload", c.Reload))
	}
	c.terms().Validate(fault)
	return errors.Join(faults...)
}
