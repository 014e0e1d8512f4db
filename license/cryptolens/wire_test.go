package cryptolens_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/inprocess/meter/license/cryptolens"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/stretchr/testify/require"
)

func answer(status int, object any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(object)
	}
}

// A real connection, over a license server's base path.
func TestOverLoopback(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	var path, contentType atomic.Value
	web := httptest.NewServer(http.StripPrefix("/proxy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.Method + " " + r.URL.String())
		contentType.Store(r.Header.Get("Content-Type"))
		srv.ServeHTTP(w, r)
	})))
	defer web.Close()
	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL + "/proxy//"})
	require.NoError(t, client.Validate())
	require.NoError(t, client.RecordUsage(t.Context(), product, key, 2))
	require.Equal(t, "POST /api/subscription/RecordUsage", path.Load(), "nothing secret in the URL")
	require.Equal(t, "application/x-www-form-urlencoded", contentType.Load())

	srv.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true}, cryptolenstest.Fault{Answer: cryptolenstest.Truncated, Applied: true})
	for range 2 {
		require.ErrorIs(t, client.RecordUsage(t.Context(), product, key, 2), cryptolens.ErrReply)
	}
	require.EqualValues(t, 6, srv.Total(product, keyText))
	require.Equal(t, 3, srv.Requests(), "net/http must not repeat what it thinks it may")
	require.NoError(t, client.Close())
}

// A handshake that fails has sent nothing, and a stream of HTTP/2 that is reset is no
// reason to send again.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	srv, _ := newServer(t)
	web := httptest.NewUnstartedServer(srv)
	web.EnableHTTP2 = true
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	defer web.Close()
	distrusting := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL})
	require.ErrorIs(t, distrusting.RecordUsage(t.Context(), product, key, 2), cryptolens.ErrNotSent)

	client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL, HTTPClient: web.Client()})
	require.NoError(t, client.RecordUsage(t.Context(), product, key, 2))
	srv.Script(cryptolenstest.Fault{Answer: cryptolenstest.Drop}, cryptolenstest.Fault{Answer: cryptolenstest.Drop, Applied: true})
	for range 2 {
		require.ErrorIs(t, client.RecordUsage(t.Context(), product, key, 2), cryptolens.ErrReply)
	}
	require.Equal(t, 3, srv.Requests())
	require.EqualValues(t, 4, srv.Total(product, keyText))
}

// A reply may be small on the way and huge here.
func TestReplyIsBoundedUnpacked(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]error{1<<20 - 20: nil, 2 << 20: cryptolens.ErrReply} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			_, _ = io.WriteString(zip, `{"result":0}`+strings.Repeat(" ", size))
			_ = zip.Close()
		}))
		err := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL}).RecordUsage(t.Context(), product, key, 2)
		require.ErrorIs(t, err, want)
		web.Close()
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for status := 301; status <= 308; status++ {
		web := httptest.NewServer(http.RedirectHandler(other.URL, status))
		given := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
		client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL, HTTPClient: given})
		err := client.RecordUsage(t.Context(), product, key, 2)
		require.ErrorIs(t, err, cryptolens.ErrReply)
		require.ErrorContains(t, err, "redirect")
		given.CloseIdleConnections()
		web.Close()
	}
	require.Zero(t, elsewhere.Load())
}

// Success is a result of 0, and nothing else is.
func TestStrictSuccess(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]error{
		`{"result":0,"message":""}`:         nil,
		`{"Result":0,"Message":null}`:       nil,
		"\ufeff {\"result\":0}\r\n":         nil,
		`{"result":0,"extra":{"result":1}}`: nil,
		``:                                  cryptolens.ErrReply,
		`{}`:                                cryptolens.ErrReply,
		`null`:                              cryptolens.ErrReply,
		`0`:                                 cryptolens.ErrReply,
		`{"message":""}`:                    cryptolens.ErrReply,
		`{"message":"Access denied."}`:      cryptolens.ErrReply,
		`{"result":null}`:                   cryptolens.ErrReply,
		`{"result":"0"}`:                    cryptolens.ErrReply,
		`{"result":false}`:                  cryptolens.ErrReply,
		`{"result":0.5}`:                    cryptolens.ErrReply,
		`{"result":0,"message":7}`:          cryptolens.ErrReply,
		`{"result":0`:                       cryptolens.ErrReply,
		`{"result":0}{"result":1}`:          cryptolens.ErrReply,
		`{"result":1,"Result":0}`:           cryptolens.ErrReply,
		`[{"result":0}]`:                    cryptolens.ErrReply,
		`<html>{"result":0}</html>`:         cryptolens.ErrReply,
		`{"result":1}`:                      cryptolens.ErrUnknown,
		`{"result":-1,"message":"Access denied"}`: cryptolens.ErrAccessDenied,
		`{"result":2,"message":"ok"}`:             cryptolens.ErrUnknown,
	} {
		for _, status := range []int{200, 400, 500} {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			}))
			client := cryptolens.NewClient(cryptolens.ClientConfig{Token: token, BaseURL: web.URL})
			err := client.RecordUsage(t.Context(), product, key, 2)
			if want == nil {
				require.NoError(t, err, body)
			} else {
				require.ErrorIs(t, err, want, body)
			}
			require.NoError(t, client.Close())
			web.Close()
		}
	}
}

// leaks repeat the form, each in its own way, as a debugging proxy would.
var leaks = map[string]func(w http.ResponseWriter, form string){
	"refusal": func(w http.ResponseWriter, form string) {
		answer(400, map[string]any{"result": 1, "message": form}).ServeHTTP(w, nil)
	},
	"long": func(w http.ResponseWriter, form string) {
		answer(400, map[string]any{"result": 1, "message": strings.Repeat("x", 250) + strings.ToLower(form)}).ServeHTTP(w, nil)
	},
	"text":     func(w http.ResponseWriter, form string) { _, _ = io.WriteString(w, form) },
	"page":     func(w http.ResponseWriter, form string) { _, _ = io.WriteString(w, "<html>"+form) },
	"type":     func(w http.ResponseWriter, form string) { fmt.Fprintf(w, `{"result":%q}`, form) },
	"property": func(w http.ResponseWriter, form string) { fmt.Fprintf(w, `{%q:0,%q:1}`, form, form) },
	"redirect": func(w http.ResponseWriter, form string) {
		w.Header().Set("Location", "/?"+form)
		w.WriteHeader(302)
	},
	"bad header": func(w http.ResponseWriter, form string) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", form)
			_ = conn.Close()
		}
	},
}

type quoting struct{}

func (quoting) RoundTrip(r *http.Request) (*http.Response, error) {
	form, _ := io.ReadAll(r.Body)
	return nil, fmt.Errorf("can't send %s to %s", form, r.URL)
}

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	cfg := cryptolens.ClientConfig{Token: token, HTTPClient: &http.Client{Transport: quoting{}}}
	say := func(client *cryptolens.Client) {
		owner := cryptolens.Owner{ProductID: product, Key: key}
		for _, err := range []error{
			client.RecordUsage(t.Context(), product, key, 2),
			second(client.GetKey(t.Context(), product, key)),
			second(client.AddDataObject(t.Context(), owner, cryptolens.DataObject{Name: "x"})),
		} {
			require.Error(t, err)
			fmt.Fprintf(&said, "%v %+v %#v %q\n", err, err, fmt.Sprint(err), err)
			slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "err", err)
		}
		fmt.Fprintf(&said, "%v %+v %#v %s %v\n", client, client, client, client, owner)
		slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "client", client, "config", cfg)
	}
	say(cryptolens.NewClient(cfg))
	for name, leak := range leaks {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			form, _ := io.ReadAll(r.Body)
			leak(w, string(form))
		}))
		before := said.Len()
		cfg := cryptolens.ClientConfig{Token: token, BaseURL: web.URL}
		client := cryptolens.NewClient(cfg)
		say(client)
		require.Greater(t, said.Len(), before, name)
		require.NoError(t, client.Close())
		web.Close()
	}
	fmt.Fprintf(&said, "%v %+v %#v %v\n", cfg, cfg, cfg, &cfg)
	encoded, err := json.Marshal(cryptolens.ClientConfig{Token: token})
	require.NoError(t, err)
	said.Write(encoded)
	lower := strings.ToLower(said.String())
	require.Contains(t, lower, "[secret]")
	require.NotContains(t, lower, "canary")
}
