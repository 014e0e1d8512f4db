package signed

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Address names what decides whom a license is believed to allow: the product, the
// public keys by their fingerprints, how old a signature may be (0: any age) and the
// terms; of Terms.Subject, whether there is one. What is not set is left out, so that a
// new setting changes no address that is known somewhere.
func Address(scheme string, product int, keys Keys, maxAge time.Duration, t Terms) string {
	settings := url.Values{}
	for _, key := range keys.keys {
		settings.Add("PublicKeys", fmt.Sprintf("%.8x", sha256.Sum256(x509.MarshalPKCS1PublicKey(key))))
	}
	slices.Sort(settings["PublicKeys"])
	for feature, flag := range t.Features {
		settings.Set("Features."+feature, strconv.Itoa(flag))
	}
	if maxAge > 0 {
		settings.Set("MaxAge", maxAge.String())
	}
	if t.FeatureTemplate {
		settings.Set("FeatureTemplate", "true")
	}
	if t.Subject != nil {
		settings.Set("Subject", "func")
	}
	if t.TimeLimited != 0 {
		settings.Set("TimeLimited", strconv.Itoa(t.TimeLimited))
	}
	return fmt.Sprintf("%s:%d?%s", scheme, product, settings.Encode())
}
