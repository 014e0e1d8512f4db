package signed

import (
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func rsaXML(modulus *big.Int, exponent int64) string {
	return xmlOf(&rsa.PublicKey{N: modulus, E: int(exponent)})
}

func TestBadKeysAreRefusedByWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := xmlOf(&vendor().PublicKey)
	short := new(big.Int).SetBit(big.NewInt(1), 1022, 1)
	for text, want := range map[string]string{
		"":                  "is empty",
		" \n":               "is empty",
		"<RSAKeyValue>":     "no <RSAKeyValue> XML",
		"WyI0NjUiLCJBWTBGT": "no <RSAKeyValue> XML", // a token
		good + good:         "no <RSAKeyValue> XML",
		good + "x":          "no <RSAKeyValue> XML",
		strings.ReplaceAll(good, "RSAKeyValue", "DSAKeyValue"):                    "no <RSAKeyValue> XML",
		strings.Replace(good, "<Exponent>", "<D>AQAB</D><Exponent>", 1):           "is a private key",
		strings.Replace(good, "<Exponent>", "<P>AQAB</P><Exponent>", 1):           "is a private key",
		strings.Replace(good, "<Modulus>", "<Modulus>!", 1):                       "Modulus that is no base64",
		strings.Replace(good, "AQAB", "AQA*", 1):                                  "Exponent that is no base64",
		"<RSAKeyValue><Modulus>AQAB</Modulus></RSAKeyValue>":                      "one Modulus and one Exponent",
		strings.Replace(good, "<Modulus>", "<Modulus>AQAB</Modulus><Modulus>", 1): "one Modulus and one Exponent",
		rsaXML(short, 65537): "has 1023 bits: at least 1024",
		rsaXML(new(big.Int).SetBit(big.NewInt(1), 8192, 1), 65537): "has 8193 bits",
		rsaXML(new(big.Int).SetBit(big.NewInt(0), 2047, 1), 65537): "even Modulus",
		rsaXML(vendor().N, 1):       "Exponent that no RSA key has",
		rsaXML(vendor().N, 65536):   "Exponent that no RSA key has",
		rsaXML(vendor().N, 1<<32+1): "Exponent that no RSA key has",
	} {
		var keys Keys
		err := keys.Add(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "WyI0")
		require.Empty(t, keys.keys)
	}
}

func TestKeysMayBeWrittenFreely(t *testing.T) {
	t.Parallel()
	text := xmlOf(&vendor().PublicKey)
	modulus := base64.StdEncoding.EncodeToString(append([]byte{0}, vendor().N.Bytes()...)) // as some writers do
	for _, text := range []string{
		"\n" + strings.ReplaceAll(text, "><", ">\n  <") + "\n",
		`<?xml version="1.0" encoding="utf-8"?>` + text + "<!-- the new one -->",
		"<RSAKeyValue><Exponent>AQAB</Exponent><Modulus>" + modulus[:60] + "\r\n" + modulus[60:] + "</Modulus></RSAKeyValue>",
	} {
		var keys Keys
		require.NoError(t, keys.Add(text), text)
		_, err := keys.Open(reply(t, vendor(), whole()))
		require.NoError(t, err)
	}
}

func TestAnyKeyOfTheSetMayHaveSigned(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, small(), vendor())
	for _, key := range []*rsa.PrivateKey{small(), vendor()} {
		_, err := keys.Open(reply(t, key, whole()))
		require.NoError(t, err)
	}
	for _, none := range []Keys{{}, keysOf(t, other())} {
		_, err := none.Open(reply(t, vendor(), whole()))
		require.ErrorIs(t, err, ErrSignature)
	}
}

func FuzzKey(f *testing.F) {
	f.Add(xmlOf(&small().PublicKey))
	f.Add("<RSAKeyValue><Modulus>AQAB</Modulus><Exponent>AQAB</Exponent></RSAKeyValue>")
	f.Add("<RSAKeyValue><D/></RSAKeyValue>")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parseKey(text)
		if err != nil {
			require.Nil(t, key)
			return
		}
		require.GreaterOrEqual(t, key.N.BitLen(), minBits)
		require.Greater(t, key.E, 1)
		_, err = Keys{[]*rsa.PublicKey{key}}.OpenParts("e30=", "AQAB")
		require.ErrorIs(t, err, ErrSignature)
	})
}
