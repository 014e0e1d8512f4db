package network

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/license/cryptolens/cryptolenstest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/cryptolenssink"
	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/inprocess/meter/sink/stripesink"
	"github.com/inprocess/meter/sink/stripesink/stripetest"
	"github.com/stretchr/testify/require"
)

const (
	feature  = "tax-report"
	secret   = "0123456789abcdef0123456789abcdef"
	token    = "network-token"
	product  = 3646
	subjects = 3
)

func subject(i int) string { return fmt.Sprint("cus_", i) }

// biller is a server, the sink that leads to it, and what it has billed a subject for.
type biller struct {
	handler http.Handler
	sink    func(url string) sink.Sink
	billed  func(subject string) int64
}

func billers() map[string]biller {
	stored := memsink.New()
	own, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: stored, Logger: quiet})
	if err != nil {
		panic(err)
	}
	stripe := stripetest.New(stripetest.Meter{EventName: "tax_report"})
	stripe.AnyCustomer = true
	cryptolens := cryptolenstest.New()
	cryptolens.AddToken(token)
	key := func(subject string) string { return "KEY-" + subject }
	for i := range subjects {
		cryptolens.AddKey(cryptolenstest.Key{ProductID: product, Key: key(subject(i))})
	}
	return map[string]biller{
		"httpsink": {own, func(url string) sink.Sink {
			return httpsink.New(httpsink.Config{URL: url, Secret: secret})
		}, func(subject string) int64 { return stored.Total(feature, subject) }},
		"stripesink": {stripe, func(url string) sink.Sink {
			return stripesink.New(stripesink.Config{Key: "sk_test_network", BaseURL: url, Meters: map[string]stripesink.Meter{feature: {EventName: "tax_report"}}})
		}, func(subject string) (sum int64) {
			for _, e := range stripe.Events() {
				if e.Payload["stripe_customer_id"] == subject {
					n, _ := strconv.ParseInt(e.Payload["value"], 10, 64)
					sum += n
				}
			}
			return sum
		}},
		"cryptolenssink": {cryptolens, func(url string) sink.Sink {
			return cryptolenssink.NewCounters(cryptolenssink.CountersConfig{
				Token: token, ProductID: product, BaseURL: url, Objects: map[string]string{feature: "reports"},
				Key: func(_ context.Context, subject string) (license.Key, error) { return license.NewKey(key(subject)), nil },
			})
		}, func(subject string) int64 {
			for _, o := range cryptolens.DataObjects(product, key(subject), "") {
				if o.Name == "reports" {
					return o.Int
				}
			}
			return 0
		}},
	}
}

var quiet = slog.New(slog.DiscardHandler)

// TestBillsOnceOverABadNetwork counts while connections fail in every way, and in the end
// everybody is billed for what was counted.
func TestBillsOnceOverABadNetwork(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	if text := os.Getenv("METER_NETWORK_ROUNDS"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		rounds = n
	}
	for name, b := range billers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 0))
			server := httptest.NewServer(b.handler)
			defer server.Close()
			l := newLink(t, server.Listener.Addr().String())
			m, err := meter.Open(meter.Config{
				Dir: t.TempDir(), Window: meter.OnFlush, Logger: quiet,
				Sinks: []meter.Route{{Name: name, Sink: b.sink("http://" + l.proxy.Listen)}},
			})
			require.NoError(t, err)
			reports := m.Feature(feature)
			counted := map[string]int64{}
			failed := 0
			for round := range rounds {
				tr := troubles(rng)
				for range 1 + rng.IntN(4) {
					who, n := subject(rng.IntN(subjects)), 1+rng.Int64N(9)
					require.NoError(t, reports.Add(t.Context(), who, n))
					counted[who] += n
				}
				l.with(tr, func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if m.Flush(ctx) != nil {
						failed++
					}
				})
				require.NoError(t, m.Books().Check(), "seed %d, round %d: %v", seed, round, tr)
				for who, n := range counted {
					require.LessOrEqual(t, b.billed(who), n, "seed %d, round %d: %v: %s is billed too much", seed, round, tr, who)
				}
			}
			require.Positive(t, failed, "nothing went wrong, so nothing was tested")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			for m.Flush(ctx) != nil && ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
			}
			for who, n := range counted {
				require.Equal(t, n, b.billed(who), "seed %d: %s: %v", seed, who, m.Health())
			}
			require.NoError(t, m.Health(), "seed %d", seed)
			require.NoError(t, m.Shutdown(ctx))
			t.Logf("seed %d: %d rounds, %d of them failed", seed, rounds, failed)
		})
	}
}
