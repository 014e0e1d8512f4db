package meter

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	secret := errors.New("dial tcp 10.0.0.7: token=hunter2")
	refused := func(reason license.Reason, after time.Duration) error {
		return fmt.Errorf("begin: %w", &RefusedError{Feature: `say "hi"`, Subject: "cus_1", Reason: reason, RetryAfter: after, Cause: secret})
	}
	for name, test := range map[string]struct {
		err        error
		status     int
		kind       string // last part of the type
		retryAfter string
	}{
		"no key":               {refused(license.NoKey, 0), 401, "NoKey", ""},
		"not found":            {refused(license.NotFound, 0), 403, "NotFound", ""},
		"expired":              {refused(license.Expired, 0), 403, "Expired", ""},
		"blocked":              {refused(license.Blocked, 0), 403, "Blocked", ""},
		"not entitled":         {refused(license.NotEntitled, 0), 403, "NotEntitled", ""},
		"unpaid":               {refused(license.Unpaid, time.Hour), 402, "Unpaid", ""},
		"over quota":           {refused(license.OverQuota, 0), 402, "OverQuota", ""},
		"too fast":             {refused(license.TooFast, 1001*time.Millisecond), 429, "TooFast", "2"},
		"too fast, a whole":    {refused(license.TooFast, 3*time.Second), 429, "TooFast", "3"},
		"too fast, a bit":      {refused(license.TooFast, 1), 429, "TooFast", "1"},
		"too fast, no time":    {refused(license.TooFast, 0), 429, "TooFast", "1"},
		"unavailable":          {refused(license.Unavailable, 90*time.Second), 503, "Unavailable", "90"},
		"unavailable, no time": {refused(license.Unavailable, 0), 503, "Unavailable", ""},
		"made up":              {refused("made-up", 0), 403, "Reason", ""},
		"another error":        {secret, 500, "", ""},
		"nil":                  {nil, 500, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Length", "7")
			WriteProblem(w, httptest.NewRequest("GET", "/?key=hunter2", nil), test.err)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.Empty(t, w.Header().Get("Content-Encoding"))
			require.Empty(t, w.Header().Get("Content-Length"))
			require.Equal(t, test.retryAfter, w.Header().Get("Retry-After"))
			require.Equal(t, test.status == 401, w.Header().Get("WWW-Authenticate") != "")
			require.NotContains(t, w.Body.String(), "hunter2")
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			require.EqualValues(t, test.status, body["status"])
			require.Equal(t, http.StatusText(test.status), body["title"])
			if test.status == 500 {
				require.Equal(t, "about:blank", body["type"])
				require.NotContains(t, body, "detail")
				return
			}
			require.Equal(t, reasonDocs+test.kind, body["type"])
			require.Equal(t, `say "hi"`, body["feature"])
			require.NotEmpty(t, body["detail"])
			require.NotEmpty(t, body["reason"])
		})
	}
}

func TestUnavailableSaysWhatIs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cause  error
		detail string
	}{
		"nobody knows": {nil, "license can't be checked"},
		"checker down": {errors.New("connection refused"), "license can't be checked"},
		"disk full":    {fmt.Errorf("%w: 4096 bytes are needed", ErrFull), "use can't be counted"},
		"shut down":    {ErrClosed, "use can't be counted"},
	} {
		w := httptest.NewRecorder()
		WriteProblem(w, httptest.NewRequest("GET", "/", nil), &RefusedError{Reason: license.Unavailable, Cause: test.cause})
		require.Contains(t, w.Body.String(), test.detail, name)
		require.NotContains(t, w.Body.String(), "4096")
	}
}

// The members of a problem are numbers also where what was used is more than one.
func TestProblemOfAHugeQuota(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	WriteProblem(w, httptest.NewRequest("GET", "/", nil), &RefusedError{Reason: license.OverQuota, Total: &Total{Quantity: 5, Used: math.MaxInt64, Limit: 10}})
	require.Contains(t, w.Body.String(), `"limit":10,"used":9223372036854775807}`)
}

func TestWriteProblemKeepsAChallenge(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	w.Header().Set("WWW-Authenticate", "Negotiate")
	WriteProblem(w, httptest.NewRequest("GET", "/", nil), &RefusedError{Reason: license.NoKey})
	require.Equal(t, []string{"Negotiate"}, w.Header().Values("WWW-Authenticate"))
}
