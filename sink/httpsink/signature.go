package httpsink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// signatureHeader carries "t=<unix seconds>,v1=<hex of HMAC-SHA-256>".
	signatureHeader = "Meter-Signature"
	maxSignature    = 1024 // bytes of the header
	maxMACs         = 8    // v1 entries, one for each secret that a sender may sign with
)

// signature is a header taken apart. Nothing of it is verified.
type signature struct {
	at   int64 // unix seconds
	macs [][sha256.Size]byte
}

// sign returns the header for a body that is sent at this time.
func sign(secret string, at time.Time, body []byte) string {
	mac := macOf(secret, at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac[:]))
}

// macOf covers the time and the body: "<t>.<body>".
func macOf(secret string, at int64, body []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write(strconv.AppendInt(nil, at, 10))
	h.Write([]byte{'.'})
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

var (
	errNoSignature  = errors.New("there must be one header " + signatureHeader)
	errBadSignature = errors.New(signatureHeader + " is not of the form t=<unix seconds>,v1=<64 hex digits>")
	errWrongMAC     = errors.New("the signature is not by a secret that is known here")
)

// readSignature takes the header apart. Entries of other names are for later versions.
func readSignature(h http.Header) (signature, error) {
	lines := h.Values(signatureHeader)
	if len(lines) != 1 {
		return signature{}, errNoSignature
	}
	return parseSignature(lines[0])
}

func parseSignature(text string) (s signature, err error) {
	if len(text) > maxSignature {
		return s, errBadSignature
	}
	timed := false
	for entry := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(entry, "=")
		switch {
		case !ok:
			return s, errBadSignature
		case name == "t":
			at, err := strconv.ParseUint(value, 10, 40)
			if err != nil || timed || strconv.FormatUint(at, 10) != value { // one time, written in one way
				return s, errBadSignature
			}
			s.at, timed = int64(at), true
		case name == "v1":
			mac, err := hex.DecodeString(value)
			if err != nil || len(mac) != sha256.Size || len(s.macs) == maxMACs {
				return s, errBadSignature
			}
			s.macs = append(s.macs, [sha256.Size]byte(mac))
		}
	}
	if !timed || len(s.macs) == 0 {
		return s, errBadSignature
	}
	return s, nil
}

// age is how far the signature's time is from now, whichever comes first.
func (s signature) age(now time.Time) time.Duration { return now.Sub(time.Unix(s.at, 0)).Abs() }

// by reports whether one of the secrets has signed body at the signature's time. It
// takes the same time whichever it is.
func (s signature) by(secrets []string, body []byte) bool {
	signed := false
	for _, secret := range secrets {
		want := macOf(secret, s.at, body)
		for _, mac := range s.macs {
			if hmac.Equal(mac[:], want[:]) {
				signed = true
			}
		}
	}
	return signed
}
