package signed

import (
	"bufio"
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func vectorKeys(t testing.TB, dir string) (keys Keys) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "pubkeys.json"))
	require.NoError(t, err)
	var texts map[string]string
	require.NoError(t, json.Unmarshal(data, &texts))
	require.NotEmpty(t, texts)
	for name, text := range texts {
		require.NoError(t, keys.Add(text), name)
	}
	return keys
}

func vector(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return data
}

type vectorLine struct {
	N        int
	Response string
	Expect   struct {
		ProductID int64 `json:"product_id"`
		ID        int64
		Key       string
		Created   int64
		Expires   int64
		Period    int64
		Block     bool
		Trial     bool `json:"trial_activation"`
		F1, F2    bool
		F3, F4    bool
		F5, F6    bool
		F7, F8    bool
		Notes     string
		GlobalID  int64   `json:"global_id"`
		Machines  [][]any `json:"activated_machines"`
		Objects   [][]any `json:"data_objects"`
	}
	Compact string `json:"compact_sha256"`
}

// Real answers of Cryptolens are read with every field, in all three shapes, and
// never with a bit changed.
func TestRealAnswers(t *testing.T) {
	t.Parallel()
	dir := vectors(t)
	keys := vectorKeys(t, dir)
	lines := bufio.NewScanner(bytes.NewReader(vector(t, dir, "cpp-tests-128.jsonl")))
	lines.Buffer(nil, MaxSize)
	n := 0
	for ; lines.Scan(); n++ {
		var v vectorLine
		require.NoError(t, json.Unmarshal(lines.Bytes(), &v))
		l, err := keys.Open([]byte(v.Response))
		require.NoError(t, err, v.N)
		checkVector(t, v, l)

		var r struct{ LicenseKey, Signature string }
		require.NoError(t, json.Unmarshal([]byte(v.Response), &r))
		again, err := keys.Open([]byte(compact + r.LicenseKey + "-" + r.Signature + "\n"))
		require.NoError(t, err, v.N)
		require.Equal(t, l, again)

		message, err := base64.StdEncoding.DecodeString(r.LicenseKey)
		require.NoError(t, err)
		message[v.N*37%len(message)] ^= 1 << (v.N % 8)
		_, err = keys.OpenParts(base64.StdEncoding.EncodeToString(message), r.Signature)
		require.ErrorIs(t, err, ErrSignature, v.N)
	}
	require.NoError(t, lines.Err())
	require.GreaterOrEqual(t, n, 100)
}

func checkVector(t *testing.T, v vectorLine, l *License) {
	t.Helper()
	e := v.Expect
	require.Equal(t, []int64{e.ProductID, e.ID, e.GlobalID, e.Period}, []int64{l.ProductID, l.ID, l.GlobalID, l.Period}, v.N)
	require.Equal(t, license.NewKey(e.Key), l.Key)
	require.Equal(t, []int64{e.Created, e.Expires}, []int64{l.Created.Unix(), l.Expires.Unix()})
	require.Equal(t, []bool{e.Block, e.Trial}, []bool{l.Block, l.TrialActivation})
	require.Equal(t, [8]bool{e.F1, e.F2, e.F3, e.F4, e.F5, e.F6, e.F7, e.F8}, l.F)
	require.Equal(t, e.Notes, l.Notes)
	require.Equal(t, time.Date(2019, 10, 7, 0, 0, 0, 0, time.UTC), l.SignDate.Truncate(24*time.Hour))
	require.Len(t, l.ActivatedMachines, len(e.Machines))
	for i, m := range l.ActivatedMachines {
		require.Equal(t, e.Machines[i], []any{m.Mid, m.IP, float64(m.Time.Unix())})
	}
	require.Len(t, l.DataObjects, len(e.Objects))
	for i, o := range l.DataObjects {
		require.Equal(t, e.Objects[i], []any{float64(o.ID), o.Name, o.StringValue, float64(o.IntValue)})
	}
}

func TestOtherRealAnswers(t *testing.T) {
	t.Parallel()
	dir := vectors(t)
	keys := vectorKeys(t, dir)
	for name, want := range map[string]error{
		"c-example-external.json":                                nil,
		"examples-java-licensefile.skm":                          nil,
		"cpp-tests-invalid-signature.json":                       ErrSignature,
		"rust-unit-isodates.json":                                ErrSignature,
		"dotnet-signedData-lingsign.json":                        ErrLingSign,
		"examples-csharp-licensefile-lingsign.json":              ErrLingSign,
		"examples-vbnet-licensefile-lingsign.json":               ErrLingSign,
		"examples-airgapped-ActivationFile20180606-lingsign.skm": ErrLingSign,
		"dotnet-valuestoUpload-usage-log.b64":                    ErrMalformed,
		"pubkeys.json":                                           ErrMalformed,
	} {
		_, err := keys.Open(vector(t, dir, name))
		require.ErrorIs(t, err, want, name)
	}
	e, err := decode(vector(t, dir, "rust-unit-isodates.json"))
	require.NoError(t, err)
	_, err = parse(e.message)
	require.ErrorIs(t, err, ErrISODates)
}

// Each real answer is signed by one key, and no other.
func TestARealAnswerNeedsItsKey(t *testing.T) {
	t.Parallel()
	dir := vectors(t)
	all := vectorKeys(t, dir)
	answer := vector(t, dir, "c-example-external.json")
	signers := slices.DeleteFunc(slices.Clone(all.keys), func(k *rsa.PublicKey) bool {
		_, err := Keys{[]*rsa.PublicKey{k}}.Open(answer)
		return err != nil
	})
	require.Len(t, signers, 1)
}
