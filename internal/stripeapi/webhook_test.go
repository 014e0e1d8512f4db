package stripeapi_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/internal/stripeapi"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-go/v76/webhook"
)

func TestCheckSecret(t *testing.T) {
	t.Parallel()
	require.NoError(t, stripeapi.CheckSecret("whsec_a+/="))
	for _, bad := range []string{"", "whsec_", "sk_test_1", "whsec_a b", "whsec_a\n", " whsec_a"} {
		require.Error(t, stripeapi.CheckSecret(bad), "%q", bad)
	}
}

func TestReadDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sign := func(body, secret string, ago time.Duration) string {
			return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{
				Payload: []byte(body), Secret: secret, Timestamp: time.Now().Add(-ago),
			}).Header
		}
		for name, test := range map[string]struct {
			body      io.Reader
			signature string
			code      int
		}{
			"first secret":     {strings.NewReader("body"), sign("body", "whsec_1", 0), 200},
			"second secret":    {strings.NewReader("body"), sign("body", "whsec_2", 0), 200},
			"empty":            {strings.NewReader(""), sign("", "whsec_1", 0), 200},
			"as old as may be": {strings.NewReader("body"), sign("body", "whsec_1", 5*time.Minute), 200},
			"too old":          {strings.NewReader("body"), sign("body", "whsec_1", 5*time.Minute+time.Second), 400},
			"ahead":            {strings.NewReader("body"), sign("body", "whsec_1", -5*time.Minute), 200},
			"too far ahead":    {strings.NewReader("body"), sign("body", "whsec_1", -5*time.Minute-time.Second), 400},
			"another secret":   {strings.NewReader("body"), sign("body", "whsec_3", 0), 400},
			"another body":     {strings.NewReader("body2"), sign("body", "whsec_1", 0), 400},
			"no signature":     {strings.NewReader("body"), "", 400},
			"as large as may":  {strings.NewReader("0123456789"), sign("0123456789", "whsec_1", 0), 200},
			"too large":        {strings.NewReader("0123456789a"), sign("0123456789a", "whsec_1", 0), 413},
			"broken":           {io.MultiReader(strings.NewReader("bo"), failing{}), sign("body", "whsec_1", 0), 400},
		} {
			r := httptest.NewRequest(http.MethodPost, "/", test.body)
			r.Header.Set("Stripe-Signature", test.signature)
			w := httptest.NewRecorder()
			body, err := stripeapi.ReadDelivery(w, r, []string{"whsec_1", "whsec_2"}, 10)
			require.Equal(t, test.code, w.Code, name)
			require.Equal(t, test.code == 200, err == nil, name)
			if err != nil {
				require.Nil(t, body, name)
				require.Equal(t, err.Error()+"\n", w.Body.String(), name)
			}
		}
	})
	w := httptest.NewRecorder()
	_, err := stripeapi.ReadDelivery(w, httptest.NewRequest(http.MethodGet, "/", nil), []string{"whsec_1"}, 10)
	require.Error(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, http.MethodPost, w.Header().Get("Allow"))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection lost") }
