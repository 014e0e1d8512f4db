package stripeapi

import (
	"errors"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

var (
	keyShape  = regexp.MustCompile(`^(sk|rk)_(test|live)_[A-Za-z0-9_]+$`)
	keyLike   = regexp.MustCompile(`(?:(?:sk|rk|pk)_(?:test|live)|whsec)_[A-Za-z0-9_*+/=]*`)
	accountID = regexp.MustCompile(`^acct_[A-Za-z0-9]+$`)
)

// CheckKey tells what is wrong with the shape of a secret key.
//
// Errors: the fault, to follow the field's name; never with the key in it.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("is empty: set it to a secret or restricted Stripe key")
	case strings.HasPrefix(key, "pk_"):
		return errors.New("is a publishable key: use a secret (sk_) or restricted (rk_) one")
	case !keyShape.MatchString(key):
		return errors.New("is no Stripe key: it must start with sk_test_, sk_live_, rk_test_ or rk_live_ and go on with letters, digits and underscores only")
	}
	return nil
}

// Live reports whether key acts in live mode.
func Live(key string) bool {
	return strings.HasPrefix(key, "sk_live_") || strings.HasPrefix(key, "rk_live_")
}

// CheckAccount tells what is wrong with an account's ID.
//
// Errors: the fault, to follow the field's name; without the ID, for a key may have
// been put there by mistake.
func CheckAccount(id string) error {
	if !accountID.MatchString(id) {
		return errors.New(`is no account ID: it looks like "acct_" and letters and digits; Stripe's dashboard shows it in the account settings`)
	}
	return nil
}

// CheckURL tells what is wrong with a base URL.
//
// Errors: the fault, to follow the field's name; without the URL, for it may hold a
// password.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is no URL with a host, such as https://api.stripe.com")
	case u.User != nil:
		return errors.New("holds a user or password: leave them out")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("holds a query or fragment: leave them out")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("must start with https:// (http:// only to this machine), for the key travels with every request")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxText bounds what a foreign text adds to an error, in bytes.
const maxText = 300

// Clean makes a foreign text fit for an error or log: without key or anything
// that looks like a key or a webhook's secret, on one line, at most maxText bytes.
func Clean(text, key string) string {
	if key != "" { // first, while the text is whole: half a key is a secret, too
		text = strings.ReplaceAll(text, key, "[key]")
	}
	text = keyLike.ReplaceAllString(text, "[key]")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
