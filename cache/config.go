package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/inprocess/meter/license"
	"go.opentelemetry.io/otel/metric"
)

// NoGrace, as Config.Grace: a verdict older than Fresh is not answered before the
// Checker has been asked again, and an outage is felt at once.
const NoGrace time.Duration = -1

// Config configures a [Cache]. [New] copies it; a zero field has the default that
// is stated beside it.
//
// Concurrency: a plain value.
type Config struct {
	// Checker is asked for what is not in memory. It must keep to its context. Required.
	// Validate, Health and Close ask it, too, if it has these methods.
	Checker license.Checker

	// File keeps verdicts and customers' keys over a restart, encrypted. Beside it stand
	// File + ".key" without a Secret, ".lock", while it is written ".tmp", and maybe
	// ".unreadable". Its directory is made if it is missing. It is for the
	// Checker's keys; if something changes that its Address can't tell, such as what a
	// function Subject does or whose account a token opens, name another File. "": they end with the
	// process.
	File string
	// Fresh is how long a customer is allowed without a refresh. 0: 5 min.
	Fresh time.Duration
	// Grace is how long a customer is allowed after the last good answer while the
	// Checker can't be reached; at least Fresh. 0: 24 h. NoGrace: no longer than Fresh.
	Grace time.Duration
	// Logger gets what no caller can be told. nil: slog.Default().
	Logger *slog.Logger
	// MeterProvider gets the statistics as metrics. nil: none.
	MeterProvider metric.MeterProvider
	// Negative is how long a denial is answered without asking again. 0: 30 s.
	Negative time.Duration
	// NegativeMax is how many denials are kept; the oldest go first. 0: 10,000.
	NegativeMax int
	// Rate is how many times a second the Checker may be asked; with a burst of one
	// second's worth. Queries of which no customer is known get three quarters of it, so
	// that random keys can't keep customers from being refreshed. Verdicts too many to be
	// refreshed at this rate every Fresh are answered from memory for longer. 0: 20.
	Rate float64
	// Secret encrypts File: at least 16 random bytes, the same at every start. With
	// another one the file is not readable. nil: one is made, and kept in File + ".key".
	Secret []byte `json:"-"`
	// Size is how many verdicts are kept, one per key, subject, feature and machine;
	// those not used for longest go first. 0: 100,000.
	Size int
}

func (c Config) withDefaults() Config {
	orDefault(&c.Fresh, 5*time.Minute)
	orDefault(&c.Grace, 24*time.Hour)
	orDefault(&c.Negative, 30*time.Second)
	orDefault(&c.NegativeMax, 10_000)
	orDefault(&c.Rate, 20)
	orDefault(&c.Size, 100_000)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// memory is how long an answer may count.
func (c *Config) memory() time.Duration { return max(c.Fresh, c.Grace) }

// minSecret is what nobody guesses.
const minSecret = 16

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate expects defaults to be filled in.
func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("cache: Config."+format, args...))
	}
	if isNil(c.Checker) {
		fault("Checker: required")
	} else if v, ok := c.Checker.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			fault("Checker: %w", err)
		}
	}
	if c.Fresh < 0 {
		fault("Fresh: %v: must not be negative", c.Fresh)
	}
	switch {
	case c.Grace == NoGrace:
	case c.Grace < 0:
		fault("Grace: %v: must not be negative, except for cache.NoGrace", c.Grace)
	case c.Grace < c.Fresh:
		fault("Grace: %v: must be at least Fresh, %v, or cache.NoGrace", c.Grace, c.Fresh)
	}
	if c.Negative < 0 {
		fault("Negative: %v: must not be negative", c.Negative)
	}
	if c.NegativeMax < 0 {
		fault("NegativeMax: %d: must not be negative", c.NegativeMax)
	}
	if !(c.Rate > 0) { // NaN, too
		fault("Rate: %v: must be positive, in calls a second", c.Rate)
	}
	switch {
	case c.Secret != nil && c.File == "":
		fault("Secret: without File there is nothing to encrypt")
	case c.Secret != nil && len(c.Secret) < minSecret:
		fault("Secret: has %d bytes: must have at least %d", len(c.Secret), minSecret)
	}
	if c.Size < 0 {
		fault("Size: %d: must not be negative", c.Size)
	}
	return errors.Join(faults...)
}

// isNil also finds a nil pointer or function inside the interface: it would panic
// at every check.
func isNil(c license.Checker) bool {
	if c == nil {
		return true
	}
	switch v := reflect.ValueOf(c); v.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// Format prints the configuration without the Secret, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Checker:%T File:%s Fresh:%v Grace:%v Negative:%v NegativeMax:%d Rate:%v Size:%d}",
		c.Checker, c.File, c.Fresh, c.Grace, c.Negative, c.NegativeMax, c.Rate, c.Size)
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
