package httpsink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/inprocess/meter/sink"
)

// NoDedupe as Config.DedupeWindow: the server may take an ID twice, so what is in
// doubt goes to quarantine at once.
const NoDedupe time.Duration = -1

const (
	defaultWindow      = 30 * 24 * time.Hour
	defaultBatch       = 100
	defaultConcurrency = 4
	defaultTimeout     = 30 * time.Second
	mostBatch          = 1000 // what every server takes, by the protocol
	mostConcurrency    = 64
	minSecret          = 16 // bytes
)

// Config of a [Sink]. URL is required, and Secret unless CloudEvents is set. fmt and
// log/slog print it without the secret and the token.
//
// Concurrency: a plain value; New copies it.
type Config struct {
	// URL is where records go, such as "https://licensing.example.com/v1/usage". It must
	// be https, except to this machine. Required.
	URL string

	// Secret signs each request. The server has the same one; use one for each server.
	// At least 16 bytes, best 32 random ones in hex. Required without CloudEvents; with
	// them, "" sends no signature.
	Secret string `json:"-"`

	// AllowHTTP permits a URL of http to another machine, where whoever is on the way
	// reads records and Token, and can answer in the server's name, so that records
	// are never billed. For networks that encrypt by themselves.
	AllowHTTP bool

	// CloudEvents sends CloudEvents 1.0 instead of the protocol's own form. nil: its own.
	CloudEvents *CloudEvents

	// Concurrency is how many requests may run at a time, at most 64. 0: 4.
	Concurrency int

	// DedupeWindow is how long the server keeps IDs, which must be true: within it,
	// records in doubt are sent again. NoDedupe: it keeps none; sink.Forever: it
	// forgets none. 0: 30 days, which every server of the protocol must keep and
	// Prepare asks about; NoDedupe with CloudEvents.
	DedupeWindow time.Duration

	// MaxBatch is the most records of a request, at most 1,000. 0: 100.
	MaxBatch int

	// Timeout bounds a delivery. 0: 30 s.
	Timeout time.Duration

	// Token is sent as "Authorization: Bearer", for gateways and for services such as
	// OpenMeter's. "": none.
	Token string `json:"-"`

	// Transport sends the requests, for client certificates and tests. It must not
	// retry. nil: one of the sink's own, with HTTP/1.1, TLS 1.2 or later, and the proxy
	// of the environment.
	Transport http.RoundTripper
}

// CloudEvents says how records become CloudEvents. Only Source is required.
//
// Concurrency: a plain value.
type CloudEvents struct {
	// Source is that of every event, a URI reference such as "//example.com/meter".
	// Never change it while records are pending: receivers dedupe by source and id.
	Source string

	// Types leads from a feature to the type of its events. A feature that is not in it
	// is its own type.
	Types map[string]string

	// Kinds are those that the receiver's meters combine as they are meant: one that
	// adds up a level bills it once a window. nil: sink.Sum.
	Kinds []sink.Kind

	// Single sends each event in a request of its own, application/cloudevents+json.
	// false: application/cloudevents-batch+json.
	Single bool
}

func (c Config) withDefaults() Config {
	c.MaxBatch = cmp.Or(c.MaxBatch, defaultBatch)
	c.Concurrency = cmp.Or(c.Concurrency, defaultConcurrency)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	if c.CloudEvents == nil {
		c.DedupeWindow = cmp.Or(c.DedupeWindow, defaultWindow)
		return c
	}
	if c.CloudEvents.Kinds == nil {
		c.CloudEvents.Kinds = []sink.Kind{sink.Sum}
	}
	if c.CloudEvents.Single {
		c.MaxBatch = 1
	}
	return c
}

// validate returns every fault by the name of its field, and never quotes what may be
// a secret in the wrong place.
func (c Config) validate() error {
	fault, faults := collect("Config")
	fault("URL", checkURL(c.URL, c.AllowHTTP))
	if c.Secret != "" || c.CloudEvents == nil {
		fault("Secret", checkSecret(c.Secret))
	}
	if c.Token != "" && strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII }) {
		fault("Token", errors.New("has spaces, control characters or others that a header can't carry"))
	}
	fault("Concurrency", checkRange(int64(c.Concurrency), 0, mostConcurrency))
	fault("MaxBatch", checkRange(int64(c.MaxBatch), 0, mostBatch))
	if c.DedupeWindow < 0 && c.DedupeWindow != NoDedupe {
		fault("DedupeWindow", fmt.Errorf("is %v, below 0: use NoDedupe if the server keeps no IDs", c.DedupeWindow))
	}
	if c.Timeout < 0 {
		fault("Timeout", fmt.Errorf("is %v, below 0", c.Timeout))
	}
	if c.CloudEvents != nil {
		c.CloudEvents.validate(fault)
		if c.CloudEvents.Single && c.MaxBatch > 1 {
			fault("MaxBatch", fmt.Errorf("is %d, but CloudEvents.Single sends one event a request", c.MaxBatch))
		}
	}
	return faults()
}

func (c CloudEvents) validate(fault func(string, error)) {
	if u, err := url.Parse(c.Source); c.Source == "" || err != nil || u.User != nil {
		fault("CloudEvents.Source", errors.New(`is no URI reference, such as "//example.com/meter"`))
	}
	for _, feature := range slices.Sorted(maps.Keys(c.Types)) {
		if kind := c.Types[feature]; kind == "" || !utf8.ValidString(kind) {
			fault(fmt.Sprintf("CloudEvents.Types[%q]", feature), errors.New("is no type: use the one that the receiver's meter is for"))
		}
	}
	if c.Kinds != nil && len(c.Kinds) == 0 {
		fault("CloudEvents.Kinds", errors.New("is empty: nil means sink.Sum"))
	}
	for i, kind := range c.Kinds {
		if kind > sink.Last {
			fault(fmt.Sprintf("CloudEvents.Kinds[%d]", i), fmt.Errorf("is %d, which is no kind", kind))
		}
	}
}

// collect returns a function that notes a fault of a field and one that joins them.
func collect(of string) (fault func(field string, err error), faults func() error) {
	var all []error
	fault = func(field string, err error) {
		if err != nil {
			all = append(all, fmt.Errorf("httpsink: %s.%s %w", of, field, err))
		}
	}
	return fault, func() error { return errors.Join(all...) }
}

func checkRange(n, least, most int64) error {
	if n < least || n > most {
		return fmt.Errorf("is %d: it must be from %d to %d", n, least, most)
	}
	return nil
}

func checkSecret(secret string) error {
	switch n := len(secret); {
	case n == 0:
		return errors.New("is empty: set it to a secret that both ends have, best 32 random bytes in hex")
	case n < minSecret:
		return fmt.Errorf("has %d bytes: a secret needs at least %d, best 32 random ones in hex", n, minSecret)
	case len(strings.TrimSpace(secret)) != n:
		return errors.New("begins or ends with white space, which a file or variable may have added")
	}
	return nil
}

func checkURL(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is no URL with a host, such as https://licensing.example.com/v1/usage")
	case u.User != nil:
		return errors.New("holds a user or password: leave them out")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("holds a query or fragment: leave them out")
	case u.Scheme == "https", u.Scheme == "http" && (allowHTTP || loopback(u.Hostname())):
		return nil
	case u.Scheme == "http":
		return errors.New("must start with https://: http:// only to this machine, or with AllowHTTP")
	}
	return errors.New("must start with https://")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Format prints the configuration without secrets, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	address := c.URL
	if checkURL(address, true) != nil {
		address = "[no URL]" // it may hold a password
	}
	fmt.Fprintf(f, "{URL:%s Secret:[secret] Token:[token] CloudEvents:%+v MaxBatch:%d DedupeWindow:%v}", address, c.CloudEvents, c.MaxBatch, c.DedupeWindow)
}

// LogValue is what [Config.Format] prints.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }
