package signed

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
)

const (
	minBits = 1024
	maxBits = 8192 // verifying with more would take long
)

// Keys are the public keys of which any may have signed a license. The zero value
// holds none, and verifies nothing.
//
// Concurrency: safe.
type Keys struct{ keys []*rsa.PublicKey }

// Add adds the public key that Cryptolens shows as <RSAKeyValue> XML.
//
// Errors: what is wrong with it, to follow the field's name; never its text, for a
// private key or a token may have been put there by mistake.
func (k *Keys) Add(text string) error {
	key, err := parseKey(text)
	if err == nil {
		k.keys = append(k.keys, key)
	}
	return err
}

func parseKey(text string) (*rsa.PublicKey, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("is empty: use the public key from the account settings of Cryptolens, <RSAKeyValue>…")
	}
	var parts struct {
		XMLName  xml.Name
		Modulus  []string `xml:"Modulus"`
		Exponent []string `xml:"Exponent"`
		D        []string `xml:"D"`
		P        []string `xml:"P"`
	}
	d := xml.NewDecoder(strings.NewReader(text))
	err := d.Decode(&parts)
	switch {
	case err != nil || !ends(d) || parts.XMLName.Local != "RSAKeyValue":
		return nil, errors.New("is no <RSAKeyValue> XML")
	case len(parts.D)+len(parts.P) > 0:
		return nil, errors.New("is a private key: use the public one, with Modulus and Exponent only, and replace the private one where it was shown")
	case len(parts.Modulus) != 1 || len(parts.Exponent) != 1:
		return nil, errors.New("needs one Modulus and one Exponent")
	}
	n, err := number(parts.Modulus[0])
	if err != nil {
		return nil, errors.New("has a Modulus that is no base64")
	}
	e, err := number(parts.Exponent[0])
	if err != nil {
		return nil, errors.New("has an Exponent that is no base64")
	}
	switch bits := n.BitLen(); {
	case bits < minBits:
		return nil, fmt.Errorf("has %d bits: at least %d are needed", bits, minBits)
	case bits > maxBits:
		return nil, fmt.Errorf("has %d bits: at most %d are accepted", bits, maxBits)
	case n.Bit(0) == 0:
		return nil, errors.New("has an even Modulus, as no RSA key has")
	case e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0:
		return nil, errors.New("has an Exponent that no RSA key has: it is AQAB as a rule")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// ends says whether nothing follows but space and comments.
func ends(d *xml.Decoder) bool {
	for {
		token, err := d.Token()
		if err != nil {
			return errors.Is(err, io.EOF)
		}
		switch token := token.(type) {
		case xml.Comment:
		case xml.CharData:
			if len(bytes.TrimSpace(token)) > 0 {
				return false
			}
		default:
			return false
		}
	}
}

func number(text string) (*big.Int, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	return new(big.Int).SetBytes(b), err
}

// verify says whether any key has signed message.
func (k Keys) verify(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	for _, key := range k.keys {
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil {
			return true
		}
	}
	return false
}

// Open reads a license from a reply, a license file, or the compact form.
//
// Guarantee: without an error, one of k has signed every field of the license. That
// is all: see [License.Bind] and [Guard].
// Errors: ErrMalformed, ErrLingSign, ErrSignature, ErrISODates; without a word of
// what was read.
func (k Keys) Open(data []byte) (*License, error) {
	e, err := decode(data)
	if err != nil {
		return nil, err
	}
	return k.open(e)
}

// OpenParts is Open for the two fields licenseKey and signature of a reply.
//
// Errors: as Open.
func (k Keys) OpenParts(licenseKey, signature string) (*License, error) {
	e, err := decodeParts(licenseKey, signature)
	if err != nil {
		return nil, err
	}
	return k.open(e)
}

func (k Keys) open(e envelope) (*License, error) {
	if !k.verify(e.message, e.signature) {
		return nil, fmt.Errorf("the license %w", ErrSignature)
	}
	return parse(e.message)
}
