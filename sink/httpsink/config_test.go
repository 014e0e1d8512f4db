package httpsink_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	s := httpsink.New(httpsink.Config{
		URL: "http://canary.example.com", Secret: "canary", Token: "canary canary", Concurrency: -1, MaxBatch: 1001,
		DedupeWindow: -2, Timeout: -1, CloudEvents: &httpsink.CloudEvents{Types: map[string]string{"a": ""}, Kinds: []sink.Kind{9}, Single: true},
	})
	err := s.Validate()
	for _, field := range []string{
		"URL", "Secret", "Token", "Concurrency", "MaxBatch", "DedupeWindow", "Timeout", "CloudEvents.Source", `CloudEvents.Types["a"]`, "CloudEvents.Kinds[0]",
	} {
		require.ErrorContains(t, err, "httpsink: Config."+field)
	}
	require.NotContains(t, err.Error(), "canary")
	err = s.Deliver(t.Context(), []sink.Record{record(1, 1)})
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorContains(t, err, "Config.URL")
	require.ErrorContains(t, s.Prepare(t.Context(), nil), "Config.URL")
	require.ErrorContains(t, httpsink.New(httpsink.Config{}).Validate(), "Config.Secret is empty")
}

func TestURL(t *testing.T) {
	t.Parallel()
	for url, ok := range map[string]bool{
		"https://example.com/v1/usage":  true,
		"https://example.com:8443":      true,
		"http://localhost:80/usage":     true,
		"http://127.0.0.1:80":           true,
		"http://[::1]:80":               true,
		"http://example.com":            false,
		"http://127.0.0.1.example.com":  false,
		"http://localhost.example.com":  false,
		"http://10.0.0.1":               false,
		"ftp://example.com":             false,
		"example.com":                   false,
		"":                              false,
		"https://":                      false,
		"https://user:pw@example.com":   false,
		"https://example.com?token=x":   false,
		"https://example.com#x":         false,
		"https://example.com/\x00":      false,
		"http://127.0.0.1@example.com/": false,
	} {
		err := httpsink.New(httpsink.Config{URL: url, Secret: secret}).Validate()
		require.Equal(t, ok, err == nil, "%q: %v", url, err)
	}
	require.NoError(t, httpsink.New(httpsink.Config{URL: "http://10.0.0.1", Secret: secret, AllowHTTP: true}).Validate())
	require.Error(t, httpsink.New(httpsink.Config{URL: "ftp://10.0.0.1", Secret: secret, AllowHTTP: true}).Validate())
}

func TestLimitsAreHonest(t *testing.T) {
	t.Parallel()
	url := "https://example.com/usage"
	s := newSink(t, httpsink.Config{Secret: secret}, url)
	require.Equal(t, sink.Limits{
		MaxBatch: 100, Concurrency: 4, MaxQuantity: 1<<53 - 1, DedupeWindow: 30 * 24 * time.Hour, Timeout: 30 * time.Second,
	}, s.Limits())
	require.Equal(t, url, s.Address())
	require.Zero(t, newSink(t, httpsink.Config{Secret: secret, DedupeWindow: httpsink.NoDedupe}, url).Limits().DedupeWindow)
	ce := newSink(t, httpsink.Config{CloudEvents: &httpsink.CloudEvents{Source: "/m", Single: true}, DedupeWindow: time.Hour}, url)
	require.Equal(t, time.Hour, ce.Limits().DedupeWindow)
	require.Equal(t, 1, ce.Limits().MaxBatch)
	require.Equal(t, "cloudevents+"+url+"#/m", ce.Address(), "another source is other events")
}

// Prepare finds a wrong secret, and a server that forgets too soon, before any record.
func TestPrepare(t *testing.T) {
	t.Parallel()
	b := newBackend(t, memsink.New(), nil)
	require.NoError(t, newSink(t, httpsink.Config{Secret: secret, DedupeWindow: sink.Forever}, b.url()).Prepare(t.Context(), nil))
	require.ErrorContains(t, newSink(t, httpsink.Config{Secret: secret + "x"}, b.url()).Prepare(t.Context(), nil), "not by a secret")

	day := newBackend(t, window{memsink.New(), 24 * time.Hour}, nil)
	require.NoError(t, newSink(t, httpsink.Config{Secret: secret, DedupeWindow: 24 * time.Hour}, day.url()).Prepare(t.Context(), nil))
	require.NoError(t, newSink(t, httpsink.Config{Secret: secret, DedupeWindow: httpsink.NoDedupe}, day.url()).Prepare(t.Context(), nil))
	err := newSink(t, httpsink.Config{Secret: secret}, day.url()).Prepare(t.Context(), nil)
	require.ErrorContains(t, err, "remembers records for 86400 s, less than Config.DedupeWindow of 720h0m0s")

	for _, f := range []http.HandlerFunc{
		answer(200, jsonBody, `{"results":[]}`), answer(200, jsonBody, `{}`), answer(204, "", ""), answer(200, "text/html", "hello"),
		answer(200, jsonBody, `{"results":[{"id":"a","status":"delivered"}],"dedupe_seconds":9999999999}`),
	} {
		require.Error(t, newSink(t, modes["protocol"], serve(t, f)).Prepare(t.Context(), nil))
	}
	silent := serve(t, answer(200, jsonBody, `{"results":[]}`))
	require.NoError(t, newSink(t, httpsink.Config{Secret: secret, DedupeWindow: httpsink.NoDedupe}, silent).Prepare(t.Context(), nil), "nothing is relied on")
	ce := newSink(t, modes["event batch"], serve(t, func(http.ResponseWriter, *http.Request) { panic("asked") }))
	require.NoError(t, ce.Prepare(t.Context(), nil))
}

type window struct {
	*memsink.Sink
	d time.Duration
}

func (w window) Limits() sink.Limits { return sink.Limits{DedupeWindow: w.d} }

// leaks repeat the secrets, each in its own way, as a debugging proxy would.
var leaks = map[string]http.HandlerFunc{
	"problem": func(w http.ResponseWriter, r *http.Request) {
		answer(401, problem, fmt.Sprintf(`{"title":%q,"status":401,"outcome":"not-applied","detail":%q}`, r.Header.Get("Authorization"), strings.Repeat("x", 285)+secret))(w, r)
	},
	"results": answer(200, jsonBody, results(`{"id":"01-record-1","status":"rejected","reason":"`+secret+`"}`)),
	"status":  answer(200, jsonBody, results(result("01-record-1", secret))),
	"text": func(w http.ResponseWriter, r *http.Request) {
		answer(500, "text/plain", fmt.Sprint(r.Header, secret))(w, r)
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?key="+secret, http.StatusTemporaryRedirect)
	},
	"break": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
}

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	logs := []*slog.Logger{slog.New(slog.NewTextHandler(&said, nil)), slog.New(slog.NewJSONHandler(&said, nil))}
	print := func(name string, v any) {
		fmt.Fprintf(&said, "%v %+v %#v %s %q\n", v, v, v, v, v)
		for _, l := range logs {
			l.Info("x", name, v)
		}
	}
	for _, f := range leaks {
		for _, mode := range modes {
			mode.Token = "canary4711-token"
			mode.URL = serve(t, f)
			s := newSink(t, mode, mode.URL)
			print("error", s.Deliver(t.Context(), []sink.Record{record(1, 1)}))
			print("prepare", s.Prepare(t.Context(), nil))
			print("sink", s)
			print("config", mode)
			print("pointer", &mode)
			mode.Transport = nil
			encoded, err := json.Marshal(mode)
			require.NoError(t, err)
			said.Write(encoded)
		}
	}
	print("URL", httpsink.Config{URL: "https://user:canary4711@example.com"})
	print("URL", httpsink.New(httpsink.Config{URL: "https://user:canary4711@example.com"}))
	cfg := httpsink.HandlerConfig{Secrets: []string{secret}, Store: memsink.New(), Logger: logs[0]}
	print("handler config", cfg)
	h, err := httpsink.NewHandler(cfg)
	require.NoError(t, err)
	print("handler", h)
	url := serve(t, h.ServeHTTP)
	for _, key := range []string{secret, "canary4711-another-one"} {
		require.NotNil(t, h)
		print("error", newSink(t, httpsink.Config{Secret: key, Token: secret}, url).Deliver(t.Context(), []sink.Record{record(2, 0), record(3, 1)}))
	}
	require.Contains(t, said.String(), "[secret]")
	require.Contains(t, said.String(), "request refused")
	require.NotContains(t, said.String(), "canary", "half a secret is one, too")
}

// net/http follows redirects with the body; a second host must get nothing of it.
func TestNothingFollowsARedirect(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the second host was asked") })
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, mode := range modes {
			s := newSink(t, mode, serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Set-Cookie", "a=b")
				http.Redirect(w, r, elsewhere, status)
			}))
			require.Equal(t, "doubt", outcome(t, s.Deliver(t.Context(), []sink.Record{record(1, 1)})))
		}
	}
}
