package offline

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
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

const (
	product = 3646
	keyText = "AAAAA-BBBBB-CCCCC-CANARY"
)

var (
	canary = license.NewKey(keyText)
	vendor = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 1024) // the smallest, for speed
		if err != nil {
			panic(err)
		}
		return key
	})
)

func publicKey() string {
	key := vendor().PublicKey
	return fmt.Sprintf("<RSAKeyValue><Modulus>%s</Modulus><Exponent>%s</Exponent></RSAKeyValue>",
		base64.StdEncoding.EncodeToString(key.N.Bytes()), base64.StdEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
}

// fields of a license, as Cryptolens names them.
type fields map[string]any

// file is a license file, signed now unless fields say otherwise.
func file(t testing.TB, fs fields) string {
	t.Helper()
	all := fields{
		"ProductId": product, "ID": 4, "GlobalId": 70123, "Key": keyText, "SignDate": time.Now().Unix(),
		"Created": 900000000, "Expires": time.Now().AddDate(1, 0, 0).Unix(), "Period": 30, "Block": false,
		"F1": true, "F2": false, "F3": false, "F4": false, "F5": false, "F6": false, "F7": false, "F8": false,
		"Notes": "ship 7", "Customer": nil, "MaxNoOfMachines": 1, "AllowedMachines": "",
		"ActivatedMachines": []fields{{"Mid": "m1", "IP": "192.0.2.1", "Time": 900000001}}, "DataObjects": []fields{},
	}
	maps.Copy(all, fs)
	message, err := json.Marshal(all)
	require.NoError(t, err)
	sum := sha256.Sum256(message)
	signature, err := rsa.SignPKCS1v15(nil, vendor(), crypto.SHA256, sum[:])
	require.NoError(t, err)
	return fmt.Sprintf("{\"licenseKey\":%q,\"signature\":%q,\"result\":0,\"message\":\"\"}\n",
		base64.StdEncoding.EncodeToString(message), base64.StdEncoding.EncodeToString(signature))
}

// world is a directory of licenses, with the state beside it.
type world struct {
	*testing.T
	dir   string
	state string
}

func newWorld(t *testing.T) world {
	dir := t.TempDir()
	return world{t, dir, filepath.Join(t.TempDir(), "state.json")}
}

func (w world) put(name, text string) {
	w.Helper()
	require.NoError(w, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
}

func (w world) remove(name string) {
	w.Helper()
	require.NoError(w, os.Remove(filepath.Join(w.dir, name)))
}

// open starts a checker, as after a restart.
func (w world) open(change func(*Config)) *Checker {
	w.Helper()
	cfg := Config{Files: os.DirFS(w.dir), MaxAge: 30 * 24 * time.Hour, ProductID: product, PublicKeys: []string{publicKey()}, State: w.state}
	if change != nil {
		change(&cfg)
	}
	c := New(cfg)
	require.NoError(w, c.Validate())
	return c
}

func (w world) allowed(c *Checker) license.Verdict {
	w.Helper()
	v, err := c.Check(w.Context(), license.Query{Key: canary})
	require.NoError(w, err)
	require.Equal(w, license.Allowed, v.Status, v.Reason)
	return v
}

func (w world) denied(c *Checker, q license.Query, why license.Reason) {
	w.Helper()
	v, err := c.Check(w.Context(), q)
	require.NoError(w, err)
	require.Equal(w, license.Denied, v.Status)
	require.Equal(w, why, v.Reason)
}

func (w world) unknown(c *Checker, want error) error {
	w.Helper()
	v, err := c.Check(w.Context(), license.Query{Key: canary})
	require.ErrorIs(w, err, want)
	require.Zero(w, v)
	require.NotContains(w, err.Error(), "CANARY")
	return err
}
