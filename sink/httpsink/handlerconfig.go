package httpsink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/inprocess/meter/sink"
)

const (
	defaultMaxAge   = 5 * time.Minute
	defaultMaxBody  = 4 << 20
	minMaxBody      = maxRequest
	defaultRequests = 32
	bodyTimeout     = 30 * time.Second
)

// HandlerConfig of a [Handler]. Secrets and Store are required. fmt and log/slog print
// it without the secrets.
//
// Concurrency: a plain value; NewHandler copies it.
type HandlerConfig struct {
	// Secrets are those that may have signed a request: several while one is being
	// replaced. First add the new one here, then have senders sign with it, then remove
	// the old one. Each of at least 16 bytes. Required.
	Secrets []string `json:"-"`

	// Store is where records go. What protects customers from a second bill is that it
	// stores an ID once, so it must state a DedupeWindow in its Limits: a function by
	// [Idempotent]; filesink; memsink in a test, which forgets all when the process
	// ends. Its Limits and Kinds are kept to, but for Rate; its Prepare is not called.
	// Of CloudEvents it is told that each is a first attempt. Required.
	Store sink.Sink

	// Logger is told about refused requests and what the store has answered. nil:
	// slog.Default().
	Logger *slog.Logger

	// MaxAge is how far a signature's time may be from this machine's, either way: for
	// so long a request that somebody recorded can be sent again, which the store makes
	// harmless. At least a second. 0: 5 min.
	MaxAge time.Duration

	// MaxBody bounds a request's body, in bytes, at least 1 MiB. 0: 4 MiB.
	MaxBody int64

	// MaxRequests bounds how many requests are dealt with at a time; others are
	// answered 503. Each may hold MaxBody in memory before it is known who sent it.
	// 0: 32.
	MaxRequests int
}

func (c HandlerConfig) withDefaults() HandlerConfig {
	c.MaxAge = cmp.Or(c.MaxAge, defaultMaxAge)
	c.MaxBody = cmp.Or(c.MaxBody, defaultMaxBody)
	c.MaxRequests = cmp.Or(c.MaxRequests, defaultRequests)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c HandlerConfig) validate() error {
	fault, faults := collect("HandlerConfig")
	if len(c.Secrets) == 0 {
		fault("Secrets", errors.New("is empty: without one nobody could be believed"))
	}
	for i, secret := range c.Secrets {
		fault(fmt.Sprintf("Secrets[%d]", i), checkSecret(secret))
	}
	fault("Store", checkStore(c.Store))
	if c.MaxAge != 0 && c.MaxAge < time.Second {
		fault("MaxAge", fmt.Errorf("is %v, below a second", c.MaxAge))
	}
	if c.MaxBody != 0 && c.MaxBody < minMaxBody {
		fault("MaxBody", fmt.Errorf("is %d: senders rely on %d bytes", c.MaxBody, minMaxBody))
	}
	if c.MaxRequests < 0 {
		fault("MaxRequests", fmt.Errorf("is %d, below 0", c.MaxRequests))
	}
	return faults()
}

func checkStore(s sink.Sink) error {
	if s == nil {
		return errors.New("is nil: where shall records go? Idempotent makes a store of a function")
	}
	if limitsOf(s).DedupeWindow <= 0 {
		return errors.New("states no Limits.DedupeWindow, so it would bill a record twice that comes twice: store record and ID in one transaction, and say so by Idempotent")
	}
	if v, ok := s.(sink.Validator); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("is faulty: %w", err)
		}
	}
	return nil
}

// Format prints the configuration without the secrets, whatever the verb.
func (c HandlerConfig) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Secrets:[%d secrets] MaxAge:%v MaxBody:%d MaxRequests:%d}", len(c.Secrets), c.MaxAge, c.MaxBody, c.MaxRequests)
}

// LogValue is what [HandlerConfig.Format] prints.
func (c HandlerConfig) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
