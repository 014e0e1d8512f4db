package stripesink_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/inprocess/meter/sink/stripesink"
	"github.com/stretchr/testify/require"
)

// Whatever is signed, the handler answers, reopens nothing but what may be a record's
// ID, and gives a reason fit for a log.
func FuzzWebhook(f *testing.F) {
	f.Add(reportOf("evt_1", 3, "01-record-0", "A", ""))
	f.Add(thin("evt_1"))
	f.Add(`{"id":"evt_1","type":"v1.billing.meter.no_meter_found","data":{"reason":{"error_types":[{"sample_errors":[null]},null]}}}`)
	f.Add(`{"id":"evt_1","type":"v1.billing.meter.no_meter_found","data":null,"livemode":true}`)
	f.Add(`{"id":"evt_1","type":"v1.billing.meter.no_meter_found","data":{"reason":{"error_count":-1}},"created":1}`)
	f.Add(strings.ReplaceAll(reportOf("evt_1", 1, "a"), "No such", testKey+`\n\u0000`))
	f.Add(`[`)
	id := regexp.MustCompile(`^[0-9a-z-]{1,64}$`)
	f.Fuzz(func(t *testing.T, body string) {
		s := stripesink.New(config(func(c *stripesink.Config) {
			c.HTTPClient = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("none") })}
		}))
		h := s.Webhook(stripesink.WebhookConfig{
			Secrets: []string{secret}, Logger: slog.New(slog.DiscardHandler),
			Reopen: func(_ context.Context, record, reason string) error {
				require.Regexp(t, id, record)
				require.Less(t, len(reason), 310)
				require.NotContains(t, reason, testKey)
				require.NotContains(t, strings.Map(func(r rune) rune {
					if unicode.IsControl(r) {
						return '\n'
					}
					return r
				}, reason), "\n")
				return nil
			},
		})
		code := deliver(h, secret, body, time.Now()).Code
		require.True(t, slices.Contains([]int{200, 400, 413, 500}, code), "%d", code)
	})
}
