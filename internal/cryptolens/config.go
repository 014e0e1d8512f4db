package cryptolens

import (
	"errors"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// CheckToken tells what is wrong with the shape of an access token.
//
// Errors: the fault, to follow the field's name; never with the token in it.
func CheckToken(token string) error {
	switch {
	case token == "":
		return errors.New("is empty: set it to an access token with permission for the methods used")
	case strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return errors.New("holds spaces or control characters, which no access token does")
	}
	return nil
}

// CheckURL tells what is wrong with a base URL. plain allows http:// to any host.
//
// Errors: the fault, to follow the field's name; without the URL, for it may hold a
// password.
func CheckURL(raw string, plain bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is no URL with a host, such as " + DefaultURL)
	case u.User != nil:
		return errors.New("holds a user or password: leave them out")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("holds a query or fragment: leave them out")
	case strings.HasSuffix(strings.ToLower(strings.TrimRight(u.Path, "/")), "/api"):
		return errors.New(`ends with "/api": leave it out, it is added`)
	case u.Scheme == "https", u.Scheme == "http" && (plain || loopback(u.Hostname())):
		return nil
	case u.Scheme == "http":
		return errors.New("starts with http://, so that the token would travel in clear: use https://, or allow it by AllowHTTP")
	}
	return errors.New("must start with https://")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxText bounds what a foreign text adds to an error, in bytes.
const maxText = 300

// Clean makes a foreign text fit for an error or log: without the token and these
// secrets, on one line, of bounded length.
func (w *Wire) Clean(text string, secrets ...string) string {
	// First, while the text is whole: half a secret is a secret, too.
	for _, secret := range append(secrets, w.token) {
		for _, form := range []string{secret, url.QueryEscape(secret)} {
			if form != "" { // in any case, for the API takes keys so
				text = regexp.MustCompile("(?i)"+regexp.QuoteMeta(form)).ReplaceAllLiteralString(text, "[secret]")
			}
		}
	}
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
