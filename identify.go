package meter

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/inprocess/meter/license"
)

// Identify finds the caller of a request. It is an [Option], too. An error that is
// a *RefusedError answers the request; any other error means that nobody could
// tell, so 503. A zero Caller is refused with 401. It must be safe for concurrent
// use.
//
// The Identify of this package refuse a request that gives two keys, an empty key,
// one of more than 4 KiB, or one with control characters, with 401. Their errors
// never contain the key.
type Identify func(*http.Request) (Caller, error)

func (id Identify) applyFeature(c *featureConfig) { c.calls.identify = id }
func (id Identify) applyCall(c *callConfig)       { c.identify = id }

const maxKey = 4 << 10

var (
	errTwoKeys = errors.New("meter: more than one key")
	errLongKey = errors.New("meter: the key has more than 4096 bytes")
	errBadKey  = errors.New("meter: the key has control characters or is not UTF-8")
	errScheme  = errors.New("meter: the Authorization header is of another scheme or broken")
)

// keyed makes a Caller of a key. It must not copy what may be 10 MB.
func keyed(key, challenge string) (Caller, error) {
	if key == "" {
		return unkeyed(ErrNoCaller, challenge)
	}
	if err := badKey(key); err != nil {
		return unkeyed(err, challenge)
	}
	return Caller{Key: license.NewKey(key)}, nil
}

// badKey says what is wrong with a key; nil also if there is none.
func badKey(key string) error {
	switch {
	case len(key) > maxKey:
		return errLongKey
	case hasControl(key):
		return errBadKey
	}
	return nil
}

func unkeyed(why error, challenge string) (Caller, error) {
	return Caller{}, &RefusedError{Reason: license.NoKey, Cause: why, challenge: challenge}
}

// single returns the only value there may be.
func single(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", errTwoKeys
}

// KeyHeader finds the key in a header of its own, such as X-License-Key. It panics
// if name can't be one.
func KeyHeader(name string) Identify {
	mustBeToken("KeyHeader", name)
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if canonical == "Host" {
		panic("meter: KeyHeader: net/http takes Host out of the headers, and it names the server, not the caller; use a header of its own")
	}
	challenge := fmt.Sprintf("ApiKey realm=%q, header=%q", realm, name)
	return func(r *http.Request) (Caller, error) {
		key, err := single(r.Header[canonical])
		if err != nil {
			return unkeyed(err, challenge)
		}
		return keyed(key, challenge)
	}
}

// KeyBearer finds the key in "Authorization: Bearer KEY".
func KeyBearer() Identify {
	challenge := fmt.Sprintf("Bearer realm=%q", realm)
	return func(r *http.Request) (Caller, error) {
		header, err := single(r.Header["Authorization"])
		if err != nil {
			return unkeyed(err, challenge)
		}
		if header == "" {
			return unkeyed(ErrNoCaller, challenge)
		}
		scheme, key, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return unkeyed(errScheme, challenge)
		}
		return keyed(strings.Trim(key, " "), challenge)
	}
}

// KeyBasic finds the key in HTTP Basic authentication: the password, or the user
// name if there is no password (curl -u KEY:).
func KeyBasic() Identify {
	challenge := fmt.Sprintf("Basic realm=%q, charset=\"UTF-8\"", realm)
	return func(r *http.Request) (Caller, error) {
		header, err := single(r.Header["Authorization"])
		switch {
		case err != nil:
			return unkeyed(err, challenge)
		case header == "":
			return unkeyed(ErrNoCaller, challenge)
		case len(header) > 4*maxKey: // before anything is decoded
			return unkeyed(errLongKey, challenge)
		}
		user, key, ok := r.BasicAuth()
		if !ok {
			return unkeyed(errScheme, challenge)
		}
		if key == "" {
			key = user
		}
		return keyed(key, challenge)
	}
}

// KeyQuery finds the key in a parameter of the URL's query. URLs end up in logs,
// histories and Referer headers, and the key with them: prefer a header. It panics
// if name is empty.
func KeyQuery(name string) Identify {
	if name == "" {
		panic("meter: KeyQuery needs the name of a parameter")
	}
	challenge := fmt.Sprintf("ApiKey realm=%q", realm)
	return func(r *http.Request) (Caller, error) {
		found, key := false, ""
		for rest := r.URL.RawQuery; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, "&")
			param, value, _ := strings.Cut(pair, "=")
			if !isParam(param, name) {
				continue
			}
			if found {
				return unkeyed(errTwoKeys, challenge)
			}
			if len(value) > 3*maxKey { // %41%42…; before anything is decoded
				return unkeyed(errLongKey, challenge)
			}
			var err error
			if key, err = url.QueryUnescape(value); err != nil {
				return unkeyed(errBadKey, challenge) // err quotes the key
			}
			found = true
		}
		return keyed(key, challenge)
	}
}

// isParam compares as the handler would, who sees the parameter unescaped.
func isParam(raw, name string) bool {
	if raw == name {
		return true
	}
	if len(raw) > 3*len(name) || !strings.ContainsAny(raw, "%+") {
		return false
	}
	unescaped, err := url.QueryUnescape(raw)
	return err == nil && unescaped == name
}

// KeyCert takes the client certificate for the key: the lower-case hex SHA-256 of
// its DER bytes. TLS has proved that the client holds the private key; whether
// anybody vouches for the certificate is up to the server's tls.Config and the
// Checker.
func KeyCert() Identify {
	challenge := fmt.Sprintf("Certificate realm=%q", realm)
	return func(r *http.Request) (Caller, error) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return unkeyed(ErrNoCaller, challenge)
		}
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		return keyed(hex.EncodeToString(sum[:]), challenge)
	}
}

// realm of the challenges of 401 answers.
const realm = "meter"

func mustBeToken(who, name string) {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			panic(fmt.Sprintf("meter: %s: %q can't be the name of a header", who, name))
		}
	}
	if name == "" {
		panic(fmt.Sprintf("meter: %s needs the name of a header", who))
	}
}
