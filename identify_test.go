package meter

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

const canary = "canary-key-4711"

func TestIdentify(t *testing.T) {
	t.Parallel()
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	query := func(q string) func(*http.Request) { return func(r *http.Request) { r.URL.RawQuery = q } }
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	huge := canary + strings.Repeat("x", 10<<20)
	escaped := strings.Repeat("%41", 4096)
	for name, test := range map[string]struct {
		id   Identify
		give func(*http.Request)
		key  string
		why  error
	}{
		"header":                     {KeyHeader("X-License-Key"), header("X-License-Key", canary), canary, nil},
		"header, name in any case":   {KeyHeader("x-license-KEY"), header("X-License-Key", canary), canary, nil},
		"header, 4 KiB":              {KeyHeader("X-Key"), header("X-Key", strings.Repeat("k", 4096)), strings.Repeat("k", 4096), nil},
		"header missing":             {KeyHeader("X-Key"), header("Y-Key", canary), "", ErrNoCaller},
		"header empty":               {KeyHeader("X-Key"), header("X-Key", ""), "", ErrNoCaller},
		"header twice":               {KeyHeader("X-Key"), header("X-Key", canary, canary), "", errTwoKeys},
		"header, control character":  {KeyHeader("X-Key"), header("X-Key", canary+"\n"), "", errBadKey},
		"header, null":               {KeyHeader("X-Key"), header("X-Key", canary+"\x00"), "", errBadKey},
		"header, tab":                {KeyHeader("X-Key"), header("X-Key", canary+"\tx"), "", errBadKey},
		"header, no UTF-8":           {KeyHeader("X-Key"), header("X-Key", canary+"\xff"), "", errBadKey},
		"header, 4 KiB and one":      {KeyHeader("X-Key"), header("X-Key", strings.Repeat("k", 4097)), "", errLongKey},
		"header, 10 MB":              {KeyHeader("X-Key"), header("X-Key", huge), "", errLongKey},
		"bearer":                     {KeyBearer(), header("Authorization", "Bearer "+canary), canary, nil},
		"bearer, lower case, spaces": {KeyBearer(), header("Authorization", "bearer  "+canary), canary, nil},
		"bearer missing":             {KeyBearer(), header("X", ""), "", ErrNoCaller},
		"bearer without a token":     {KeyBearer(), header("Authorization", "Bearer"), "", ErrNoCaller},
		"bearer, other scheme":       {KeyBearer(), basic("u", canary), "", errScheme},
		"bearer twice":               {KeyBearer(), header("Authorization", "Bearer "+canary, "Bearer x"), "", errTwoKeys},
		"bearer, 10 MB":              {KeyBearer(), header("Authorization", "Bearer "+huge), "", errLongKey},
		"basic, password":            {KeyBasic(), basic("user", canary), canary, nil},
		"basic, user only":           {KeyBasic(), basic(canary, ""), canary, nil},
		"basic, neither":             {KeyBasic(), basic("", ""), "", ErrNoCaller},
		"basic missing":              {KeyBasic(), header("X", ""), "", ErrNoCaller},
		"basic, other scheme":        {KeyBasic(), header("Authorization", "Bearer "+canary), "", errScheme},
		"basic, broken":              {KeyBasic(), header("Authorization", "Basic %%%"+canary), "", errScheme},
		"basic twice":                {KeyBasic(), header("Authorization", "Basic x", "Basic y"), "", errTwoKeys},
		"basic, control character":   {KeyBasic(), basic("u", canary+"\x01"), "", errBadKey},
		"basic, 10 MB":               {KeyBasic(), basic("u", huge), "", errLongKey},
		"query":                      {KeyQuery("key"), query("a=b&key=" + canary + "&c=d"), canary, nil},
		"query, escaped":             {KeyQuery("key"), query("key=%63anary%2Dkey-4711"), canary, nil},
		"query, escaped name":        {KeyQuery("key"), query("%6Bey=" + canary), canary, nil},
		"query, name with a space":   {KeyQuery("the key"), query("the+key=" + canary), canary, nil},
		"query missing":              {KeyQuery("key"), query("keys=" + canary), "", ErrNoCaller},
		"query empty":                {KeyQuery("key"), query("key="), "", ErrNoCaller},
		"query twice":                {KeyQuery("key"), query("key=" + canary + "&key=x"), "", errTwoKeys},
		"query, empty and full":      {KeyQuery("key"), query("key=&key=" + canary), "", errTwoKeys},
		"query twice, escaped":       {KeyQuery("key"), query("key=" + canary + "&k%65y=x"), "", errTwoKeys},
		"query, bad escape":          {KeyQuery("key"), query("key=" + canary + "%zz"), "", errBadKey},
		"query, control character":   {KeyQuery("key"), query("key=" + canary + "%0a"), "", errBadKey},
		"query, 4 KiB of escapes":    {KeyQuery("key"), query("key=" + escaped), strings.Repeat("A", 4096), nil},
		"query, more than that":      {KeyQuery("key"), query("key=A" + escaped), "", errLongKey},
		"query, 10 MB":               {KeyQuery("key"), query("key=" + huge), "", errLongKey},
		"cert missing":               {KeyCert(), header("X", ""), "", ErrNoCaller},
		"cert, TLS without one":      {KeyCert(), func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, "", ErrNoCaller},
		"cert": {KeyCert(), func(r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("der")}}}
		}, hexSHA256("der"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			test.give(r)
			who, err := test.id(r)
			require.Equal(t, Caller{Key: license.NewKey(test.key)}, who)
			if test.why == nil {
				require.NoError(t, err)
				return
			}
			refused := asRefused(t, err)
			require.ErrorIs(t, err, test.why)
			require.Equal(t, license.NoKey, refused.Reason)
			require.Equal(t, 401, refused.Status())
			require.NotContains(t, err.Error()+refused.Cause.Error(), "canary")

			w := httptest.NewRecorder()
			WriteProblem(w, r, err)
			require.Equal(t, 401, w.Code)
			require.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
			var dump bytes.Buffer
			require.NoError(t, w.Result().Write(&dump))
			require.NotContains(t, dump.String(), "canary")
		})
	}
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestHugeKeysAreNotCopied(t *testing.T) {
	huge := strings.Repeat("x", 10<<20)
	r := httptest.NewRequest("GET", "/", nil)
	for name, give := range map[string]struct {
		id Identify
		to func()
	}{
		"header": {KeyHeader("X-Key"), func() { r.Header.Set("X-Key", huge) }},
		"bearer": {KeyBearer(), func() { r.Header.Set("Authorization", "Bearer "+huge) }},
		"basic": {KeyBasic(), func() {
			r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(huge)))
		}},
		"query":      {KeyQuery("key"), func() { r.URL.RawQuery = "key=" + huge }},
		"query name": {KeyQuery("key"), func() { r.URL.RawQuery = huge + "%41=x" }},
	} {
		give.to()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := give.id(r)
		runtime.ReadMemStats(&after)
		require.Error(t, err, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10), name)
	}
}

func TestIdentifyChallenges(t *testing.T) {
	t.Parallel()
	for want, id := range map[string]Identify{
		`ApiKey realm="meter", header="X-Key"`: KeyHeader("X-Key"),
		`Bearer realm="meter"`:                 KeyBearer(),
		`Basic realm="meter", charset="UTF-8"`: KeyBasic(),
		`ApiKey realm="meter"`:                 KeyQuery("key"),
		`Certificate realm="meter"`:            KeyCert(),
	} {
		r := httptest.NewRequest("GET", "/", nil)
		_, err := id(r)
		w := httptest.NewRecorder()
		WriteProblem(w, r, err)
		require.Equal(t, want, w.Header().Get("WWW-Authenticate"))
	}
}

func TestIdentifyWiring(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a b", "a:b", "ä", "a\n"} {
		require.Contains(t, panicOf(func() { KeyHeader(name) }), "KeyHeader")
	}
	require.Contains(t, panicOf(func() { KeyHeader("host") }), "net/http takes Host out")
	require.Contains(t, panicOf(func() { KeyQuery("") }), "KeyQuery")
}

// Duplicate headers as a client would really send them.
func TestKeySmuggling(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Checker = static(map[string]license.Verdict{"good": allowed("s")}) })
	server := httptest.NewServer(Middleware(m.Feature("f"), KeyHeader("X-Key"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	for want, keys := range map[int][]string{200: {"good"}, 401: {"good", "bad"}} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", server.URL, nil)
		r.Header["X-Key"] = keys
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, want, res.StatusCode)
	}
}

func FuzzKeyQuery(f *testing.F) {
	for _, seed := range []string{"key=a", "key=a&key=b", "k%65y=a", "a=b;key=c", "key=%zz", "&&=&key", "key=a+b"} {
		f.Add(seed)
	}
	id := KeyQuery("key")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		who, err := id(r)
		if err != nil {
			require.Zero(t, who)
			return
		}
		key := who.Key.Reveal()
		require.NotEmpty(t, key)
		require.LessOrEqual(t, len(key), maxKey)
		if !strings.Contains(query, ";") { // which net/url drops
			require.Equal(t, []string{key}, r.URL.Query()["key"], "the handler sees the same")
		}
	})
}

// As bytes on the wire, where a proxy in front may read them in another way than
// net/http does: nothing but one good header lets anybody in.
func TestKeySmugglingOverTheWire(t *testing.T) {
	t.Parallel()
	m := open(t, func(c *Config) { c.Checker = static(map[string]license.Verdict{"good": allowed("s")}) })
	ran := 0
	server := httptest.NewServer(Middleware(m.Feature("f"), KeyHeader("X-Key"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran++ })))
	defer server.Close()
	for name, test := range map[string]struct {
		head   string
		status int
	}{
		"one":                   {"X-Key: good", 200},
		"two":                   {"X-Key: good\r\nX-Key: bad", 401},
		"two, in another case":  {"x-KEY: bad\r\nX-Key: good", 401},
		"the same one twice":    {"X-Key: good\r\nX-Key: good", 401},
		"an empty one before":   {"X-Key:\r\nX-Key: good", 401},
		"a list":                {"X-Key: good, bad", 403},
		"a continued line":      {"X-Key: good\r\n bad", 403},
		"a space in the name":   {"X-Key : good", 400},
		"an underscore":         {"X_Key: good", 401},
		"a null":                {"X-Key: good\x00", 400},
		"a bare CR":             {"X-Key: bad\rX-Key: good", 400},
		"of a proxy":            {"X-Forwarded-For: good\r\nX-Forwarded-X-Key: good\r\nForwarded: for=good;by=good\r\nVia: good", 401},
		"too long":              {"X-Key: good" + strings.Repeat("d", maxKey), 401},
		"only after the body":   {"Trailer: X-Key\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Key: good", 401},
		"in the body of a GET":  {"Content-Length: 11\r\n\r\nX-Key: good", 401},
		"in the query, instead": {"X-Original-URL: /?X-Key=good", 401},
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n", test.head)
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err, name)
		require.Equal(t, test.status, res.StatusCode, name)
		require.NoError(t, res.Body.Close())
		require.NoError(t, conn.Close())
	}
	require.Equal(t, 1, ran)
	require.EqualValues(t, 1, m.billed(t, "f", "s"))
}
