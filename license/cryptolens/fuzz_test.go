package cryptolens_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/stretchr/testify/require"
)

// Whatever the API says, each method answers with what it promises or with one of the
// named errors.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		`{"result":0,"licenseKey":"e30=","signature":"AA==","id":7,"dataObjects":[{"id":5000000000,"name":"a","intValue":-1}]}`,
		`{"result":0,"licenseKey":{},"signature":null,"id":"7","dataObjects":{}}`, `{"result":1,"message":"Could not find the key"}`,
		`{"result":0,"dataObjects":null,"id":0}`, `{"message":"x"}`, `[]`, "",
	} {
		f.Add([]byte(seed), http.StatusOK)
	}
	f.Add([]byte(`{"result":0}`), http.StatusInternalServerError)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		if status < 200 || status > 599 {
			return
		}
		client := newClient(served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})), token)
		owner := cryptolens.Owner{ProductID: product, Key: key}
		named := func(err error) bool {
			said, ok := errors.AsType[*cryptolens.Error](err)
			return ok && errors.Is(err, cryptolens.ErrNotApplied) != errors.Is(err, cryptolens.ErrInDoubt) && said.Status == status
		}
		recorded := client.RecordUsage(t.Context(), product, key, 1)
		require.True(t, recorded == nil || named(recorded), "%v", recorded)
		require.True(t, recorded != nil || json.Valid(body) || body[0] == 0xef)

		s, err := client.GetKey(t.Context(), product, key)
		require.True(t, err == nil && s.LicenseKey != "" && s.Signature != "" || err != nil && s.Body == nil && named(err), "%v", err)
		id, err := client.AddDataObject(t.Context(), owner, cryptolens.DataObject{Name: "x"})
		require.True(t, err == nil && id != 0 || err != nil && id == 0 && named(err), "%v", err)
		list, err := client.DataObjects(t.Context(), owner, "")
		require.True(t, err == nil || list == nil && named(err), "%v", err)
	})
}
