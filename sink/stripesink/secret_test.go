package stripesink_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

const canary = "canary4711"

// leaks repeat the key, each in its own way, as a debugging proxy would.
var leaks = map[string]http.HandlerFunc{
	"stripe error": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, stripeError("invalid_request_error", "", "Invalid API Key provided: "+r.Header.Get("Authorization")))
	},
	"invalid": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, stripeError("invalid_request_error", r.Header.Get("Authorization"), strings.Repeat("x", 285)+r.Header.Get("Authorization")))
	},
	"text": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, r.Header)
	},
	"page": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprintf(w, "<html>%v", r.Header)
	},
	"no JSON": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header) },
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?key="+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), http.StatusFound)
	},
	"break": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
}

func TestKeyStaysSecret(t *testing.T) { // not parallel: it watches standard error
	var said bytes.Buffer
	stderr := captureStderr(t, func() {
		for name, handler := range leaks {
			server := httptest.NewUnstartedServer(handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.Start()
			cfg := stripesink.Config{
				Key: testKey, BaseURL: server.URL, HTTPClient: server.Client(),
				Meters: map[string]stripesink.Meter{feature: {EventName: event}}, SoleWriter: true,
			}
			s := stripesink.New(cfg)
			for _, err := range []error{
				s.Deliver(t.Context(), []sink.Record{record(0, 1), record(1, 1)}),
				s.Prepare(t.Context(), []sink.Feature{{Name: feature}}),
				s.Void(t.Context(), record(0, 1)),
				second(s.Verify(t.Context(), record(0, 1), true)),
				second(s.Usage(t.Context(), feature, customer, start, start.Add(time.Hour))),
				second(s.Reconcile(t.Context(), (&books{}).all(), start, start.Add(time.Hour))),
			} {
				if name != "no JSON" {
					require.Error(t, err, name)
				}
				fmt.Fprintf(&said, "%v %+v %#v\n", err, err, fmt.Sprint(err))
			}
			slog.New(slog.NewTextHandler(&said, nil)).Info("x", "sink", s, "config", cfg)
			slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "sink", s, "config", cfg)
			fmt.Fprintf(&said, "%v %+v %#v %s %q %d %v %+v %#v\n", s, s, s, s, s, s, cfg, cfg, &cfg)
			require.Equal(t, slog.KindString, slog.AnyValue(cfg).Resolve().Kind())
			encoded, err := json.Marshal(stripesink.Config{Key: testKey})
			require.NoError(t, err)
			said.Write(encoded)
			hook := stripesink.WebhookConfig{Secrets: []string{secret}}
			fmt.Fprintf(&said, "%v %+v %#v %s\n", hook, hook, hook, &hook)
			slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "webhook", hook)
			server.Close()
		}
	})
	require.Contains(t, said.String(), "[key]")
	require.NotContains(t, said.String(), canary)
	require.NotContains(t, said.String(), canary[:4], "half a key is a secret, too")
	require.Empty(t, stderr, "the SDK's log is silenced")
}

func second[T any](_ T, err error) error { return err }

func captureStderr(t *testing.T, run func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	require.NoError(t, err)
	real := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = real }()
	run()
	os.Stderr = real
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	require.NoError(t, file.Close())
	return string(text)
}
