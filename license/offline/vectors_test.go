package offline

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// A file that Cryptolens has signed, from a folder that is not part of this
// repository, is read from disk as it is.
func TestARealLicenseFile(t *testing.T) {
	t.Parallel()
	root := os.Getenv("METER_VECTORS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "vectors")
	}
	dir := filepath.Join(root, "cryptolens")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real license files in %s: set METER_VECTORS to their folder", dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, "pubkeys.json"))
	require.NoError(t, err)
	keys := map[string]string{}
	require.NoError(t, json.Unmarshal(text, &keys))

	cfg := Config{Files: os.DirFS(dir), Pattern: "examples-java-*.skm", MaxAge: AnyAge, ProductID: 3941, PublicKeys: []string{keys["B_sGbv"]}, Features: map[string]int{"on": 1, "off": 2}}
	var reply struct{ LicenseKey []byte }
	text, err = os.ReadFile(filepath.Join(dir, "examples-java-licensefile.skm"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &reply))
	var says struct {
		Key      string
		GlobalID int64
	}
	require.NoError(t, json.Unmarshal(reply.LicenseKey, &says))
	q := license.Query{Key: license.NewKey(says.Key), Feature: "on", Machine: "test"}
	c := New(cfg)
	v, err := c.Check(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, license.Expired, v.Reason)
	require.NoError(t, c.Health())

	cfg.TimeLimited = Perpetual
	c = New(cfg)
	for feature, want := range map[string]license.Status{"on": license.Allowed, "off": license.Denied} {
		q.Feature = feature
		v, err = c.Check(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, want, v.Status)
		require.Equal(t, strconv.FormatInt(says.GlobalID, 10), v.Subject)
	}
	cfg.ProductID++
	require.ErrorIs(t, New(cfg).Health(), ErrProduct)
	cfg.PublicKeys = []string{keys["A_khby"]}
	require.ErrorIs(t, New(cfg).Health(), ErrSignature)
}
