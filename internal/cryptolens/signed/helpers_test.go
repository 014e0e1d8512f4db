package signed

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const testKey = "AAAAA-BBBBB-CCCCC-CANARY"

func newKey(bits int) func() *rsa.PrivateKey {
	return sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	})
}

var (
	vendor = newKey(2048)
	small  = newKey(1024)
	other  = newKey(2048)
)

func xmlOf(key *rsa.PublicKey) string {
	return fmt.Sprintf("<RSAKeyValue><Modulus>%s</Modulus><Exponent>%s</Exponent></RSAKeyValue>",
		base64.StdEncoding.EncodeToString(key.N.Bytes()), base64.StdEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
}

func keysOf(t testing.TB, private ...*rsa.PrivateKey) (keys Keys) {
	t.Helper()
	for _, p := range private {
		require.NoError(t, keys.Add(xmlOf(&p.PublicKey)))
	}
	return keys
}

// fields of a license as Cryptolens sends them.
type object = map[string]any

func whole() object {
	return object{
		"ProductId": 3646, "ID": 4, "Key": testKey, "Created": 1500000000, "Expires": 1893456000, "Period": 30,
		"F1": true, "F2": false, "F3": false, "F4": false, "F5": false, "F6": false, "F7": false, "F8": true,
		"Notes": "note", "Block": false, "GlobalId": 70123,
		"Customer": object{"Id": 7, "Name": "Ada", "Email": "ada@example.com", "CompanyName": "Engines", "Created": 1499000000},
		"ActivatedMachines": []object{
			{"Mid": "m1", "IP": "192.0.2.1:4711", "Time": 1501000018, "FriendlyName": nil, "FloatingExpires": -62135596800},
			{"Mid": "floating:m2", "IP": nil, "Time": 1501000019, "FloatingExpires": 1767225600},
			{"Mid": "floating:overdraft:m3", "IP": "", "Time": 1501000020},
		},
		"TrialActivation": false, "MaxNoOfMachines": 10, "AllowedMachines": "m1\r\nm2\n",
		"DataObjects": []object{{"Id": 5000000000, "Name": "credits", "StringValue": nil, "IntValue": -3}},
		"SignDate":    1502000000, "Reseller": object{"Id": 1, "Name": "x"}, "SomethingNew": []any{1, "two"},
	}
}

// of returns o with the fields of e changed.
func (e edit) of(o object) object {
	o = maps.Clone(o)
	for field, value := range e {
		if value == gone {
			delete(o, field)
		} else {
			o[field] = value
		}
	}
	return o
}

type edit object

type absent struct{}

var gone = absent{}

func message(t testing.TB, o object) []byte {
	t.Helper()
	b, err := json.Marshal(o)
	require.NoError(t, err)
	return b
}

func parts(t testing.TB, key *rsa.PrivateKey, message []byte) (licenseKey, signature string) {
	t.Helper()
	sum := sha256.Sum256(message)
	mark, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(message), base64.StdEncoding.EncodeToString(mark)
}

func reply(t testing.TB, key *rsa.PrivateKey, o object) []byte {
	t.Helper()
	licenseKey, signature := parts(t, key, message(t, o))
	return fmt.Appendf(nil, `{"licenseKey":%q,"signature":%q,"result":0,"message":""}`, licenseKey, signature)
}

func open(t testing.TB, e edit) *License {
	t.Helper()
	l, err := keysOf(t, vendor()).Open(reply(t, vendor(), e.of(whole())))
	require.NoError(t, err)
	return l
}

// vectors is the folder of real answers that Cryptolens has signed, which are not
// part of this repository.
func vectors(t testing.TB) string {
	t.Helper()
	root := os.Getenv("METER_VECTORS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "vectors")
	}
	dir := filepath.Join(root, "cryptolens")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real answers in %s: set METER_VECTORS to their folder", dir)
	}
	return dir
}
