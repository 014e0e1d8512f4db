package cryptolens_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

// liar stands between a checker and the API, as a proxy of the customer's might. It
// can change questions and answers.
type liar struct {
	api      http.RoundTripper
	question func(url.Values)
	answer   func(body []byte) []byte
}

func (l *liar) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.question != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		l.question(form)
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form.Encode())), int64(len(form.Encode()))
	}
	resp, err := l.api.RoundTrip(r)
	if err != nil || l.answer == nil {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	body = l.answer(body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// newLiar returns a checker that trusts the server's key and is lied to.
func newLiar(t *testing.T, srv *cryptolenstest.Server) (*liar, *cryptolens.Checker) {
	t.Helper()
	l := &liar{api: srv.Client().Transport}
	return l, newCheckerOver(t, srv, &http.Client{Transport: l}, nil)
}

// edited changes the license within an answer, and keeps the signature.
func edited(t *testing.T, change func(text string) string) func([]byte) []byte {
	return func(body []byte) []byte {
		var answer map[string]any
		require.NoError(t, json.Unmarshal(body, &answer))
		text, err := base64.StdEncoding.DecodeString(answer["licenseKey"].(string))
		require.NoError(t, err)
		changed := change(string(text))
		require.NotEqual(t, string(text), changed)
		answer["licenseKey"] = base64.StdEncoding.EncodeToString([]byte(changed))
		body, err = json.Marshal(answer)
		require.NoError(t, err)
		return body
	}
}

func TestATamperedAnswerIsNotBelieved(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) { k.Block = true })
	l, c := newLiar(t, srv)
	require.Equal(t, license.Blocked, check(t, c, license.Query{Key: key}).Reason)
	for _, change := range []func(string) string{
		func(s string) string { return strings.Replace(s, `"Block":true`, `"Block":false`, 1) },
		func(s string) string { return s + " " },
		func(s string) string { return strings.Replace(s, `"F1"`, `"f1"`, 1) },
	} {
		l.answer = edited(t, change)
		unknown(t, c, cryptolens.ErrSignature)
	}
	l.answer = func(body []byte) []byte {
		return bytes.Replace(body, []byte(`"signature":"`), []byte(`"signature":"AAAA`), 1)
	}
	unknown(t, c, cryptolens.ErrSignature)
	l.answer = func([]byte) []byte { return []byte(`{"licenseKey":"e30=","signature":"!","result":0}`) }
	unknown(t, c, cryptolens.ErrMalformed)
	l.answer = func([]byte) []byte { return []byte(`{"licenseKey":"e30=","result":0}`) }
	unknown(t, c, cryptolens.ErrReply)
	l.answer = func([]byte) []byte { return []byte(`{"licenseKey":{"key":"k"},"signature":"AQAB","result":0}`) } // SignMethod 0
	unknown(t, c, cryptolens.ErrReply)
	l.answer = nil
	require.Equal(t, license.Blocked, check(t, c, license.Query{Key: key}).Reason)
}

// The answer to another question, though really signed, is none.
func TestAnswersAreBoundToTheQuestion(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: "OTHER-AAAAA-BBBBB-CCCCC"})
	srv.AddKey(cryptolenstest.Key{ProductID: product + 1, Key: keyText})
	l, c := newLiar(t, srv)
	l.question = func(f url.Values) { f.Set("Key", "OTHER-AAAAA-BBBBB-CCCCC") }
	unknown(t, c, cryptolens.ErrKey)
	l.question = func(f url.Values) { f.Set("ProductId", "3647") }
	unknown(t, c, cryptolens.ErrProduct)
	// Should the API take keys in any case, it is still another key, and no trouble.
	l.question = func(f url.Values) { f.Set("Key", keyText) }
	require.Equal(t, license.NotFound, check(t, c, license.Query{Key: license.NewKey(strings.ToLower(keyText))}).Reason)
	l.question = nil
	require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status)
}

// Whoever kept an answer of before a block can't undo the block by it.
func TestAnOlderAnswerIsNotBelieved(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	clock := cryptolenstest.NewClock(time.Now().Truncate(time.Second))
	srv.Now = clock.Now
	l, c := newLiar(t, srv)
	var before []byte
	l.answer = func(body []byte) []byte { before = body; return body }
	require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status)
	l.answer = func([]byte) []byte { return before }
	require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status, "as a license server on premises does")

	clock.Advance(time.Second)
	srv.ChangeKey(product, keyText, func(k *cryptolenstest.Key) { k.Block = true })
	l.answer = nil
	require.Equal(t, license.Blocked, check(t, c, license.Query{Key: key}).Reason)
	l.answer = func([]byte) []byte { return before }
	unknown(t, c, cryptolens.ErrReplayed)
	l.answer = nil
	require.Equal(t, license.Blocked, check(t, c, license.Query{Key: key}).Reason)
}

func TestAnswersOfAnotherTime(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ahead  time.Duration // of the server's clock
		maxAge time.Duration
		want   error
	}{
		"now":                     {0, 0, nil},
		"an hour ago":             {-time.Hour, 0, nil},
		"a day ago":               {-24 * time.Hour, 0, cryptolens.ErrTooOld},
		"a day ago, any age":      {-24 * time.Hour, cryptolens.AnyAge, nil},
		"an hour ago, half is ok": {-time.Hour, 30 * time.Minute, cryptolens.ErrTooOld},
		"in half an hour":         {30 * time.Minute, 0, nil},
		"tomorrow":                {24 * time.Hour, cryptolens.AnyAge, cryptolens.ErrClock},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, _ := newServer(t)
			srv.Now = cryptolenstest.NewClock(time.Now().Add(test.ahead)).Now
			c := newChecker(t, srv, func(c *cryptolens.Config) { c.MaxAge = test.maxAge })
			if test.want != nil {
				unknown(t, c, test.want)
				return
			}
			require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status)
		})
	}
}

// Expiry goes by the license server's clock where ours is behind.
func TestALicenseEndsByTheLaterClock(t *testing.T) {
	t.Parallel()
	srv := cryptolenstest.New()
	now := time.Now()
	srv.Now = cryptolenstest.NewClock(now.Add(30 * time.Minute)).Now
	srv.AddKey(cryptolenstest.Key{ProductID: product, Key: keyText, Expires: now.Add(10 * time.Minute)})
	require.Equal(t, license.Expired, check(t, newChecker(t, srv, nil), license.Query{Key: key}).Reason)
}

func TestTheVendorsKeyIsRotated(t *testing.T) {
	t.Parallel()
	srv, client := newServer(t)
	first := srv.PublicKeyXML()
	c := newChecker(t, srv, nil)
	require.Equal(t, license.Allowed, check(t, c, license.Query{Key: key}).Status)
	srv.RotateKey()
	unknown(t, c, cryptolens.ErrSignature)
	both := []string{first, srv.PublicKeyXML()}
	require.Equal(t, license.Allowed, check(t, newChecker(t, srv, func(c *cryptolens.Config) { c.PublicKeys = both }), license.Query{Key: key}).Status)

	s, err := client.GetKey(t.Context(), product, key)
	require.NoError(t, err)
	l, err := s.Verify(product, key, both...)
	require.NoError(t, err)
	require.Equal(t, key, l.Key)
	for _, test := range []struct {
		product int
		key     license.Key
		keys    []string
		want    error
	}{
		{product, key, both[:1], cryptolens.ErrSignature},
		{product, key, nil, cryptolens.ErrSignature},
		{product + 1, key, both, cryptolens.ErrProduct},
		{product, license.NewKey("x"), both, cryptolens.ErrKey},
	} {
		l, err := s.Verify(test.product, test.key, test.keys...)
		require.ErrorIs(t, err, test.want)
		require.Zero(t, l)
	}
	_, err = s.Verify(product, key, both[0], "x")
	require.ErrorContains(t, err, "public key 2 of 2 is no <RSAKeyValue> XML")
}
