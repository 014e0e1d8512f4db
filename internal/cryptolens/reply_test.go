package cryptolens_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/inprocess/meter/internal/cryptolens"
	"github.com/stretchr/testify/require"
)

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"result":0,"message":""}`, `{"result":1,"message":"Access denied."}`, `{"Result":0}`, "\ufeff{\"result\":0}", `{"message":""}`,
		`{"result":1,"RESULT":0}`, `{"result":0}{}`, `{"result":null}`, `{"result":0,"a":{"result":1}}`, ``, `<html>`, `[]`, `{"result":0.0}`, `{"result":1e0}`, "{\"result\":0}\v",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := cryptolens.Decode(body)
		if err != nil {
			require.False(t, r.OK)
			require.NotEmpty(t, err.Error())
			return
		}
		// Another decoder, which takes the last of equal names: there is but one, so it
		// must see the same.
		var other struct {
			Result  *int    `json:"result"`
			Message *string `json:"message"`
		}
		if len(body) >= 3 && string(body[:3]) == "\ufeff" {
			body = body[3:]
		}
		if strings.ContainsRune(string(body), 'ſ') {
			return // which the other one takes for an s
		}
		require.NoError(t, json.Unmarshal(body, &other))
		require.NotNil(t, other.Result)
		require.Equal(t, *other.Result == 0, r.OK)
		if other.Message != nil {
			require.Equal(t, *other.Message, r.Message)
		}
		require.NotPanics(t, func() { _ = r.Field("dataobjects", &[]struct{ ID int64 }{}) })
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	w := cryptolens.New("", "tok/en", 1, nil)
	for text, want := range map[string]string{
		"plain":                  "plain",
		"a tok/en and k-1":       "a [secret] and [secret]",
		"A TOK/EN and K-1":       "A [secret] and [secret]",
		"token=tok%2Fen&Key=k-1": "token=[secret]&Key=[secret]",
		"lines\r\nand\x00such":   "lines  and such",
		"bad \xff utf8":          "bad ? utf8",
	} {
		require.Equal(t, want, w.Clean(text, "k-1", ""))
	}
}
