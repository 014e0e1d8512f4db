package stripelicense

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/inprocess/meter/license"
)

// KeyDigest is what the metadata field holds instead of a license key if there is a
// Config.KeySecret: the HMAC-SHA-256 of the key under it, in lower-case hexadecimal
// digits. Whoever issues keys writes it into the subscription.
func KeyDigest(secret string, key license.Key) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(key.Reveal())) // never fails
	return hex.EncodeToString(mac.Sum(nil))
}
