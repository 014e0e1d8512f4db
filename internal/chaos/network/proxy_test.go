package network

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // the proxy tells all that it does
	os.Exit(m.Run())
}

// link is the way from a sink to its biller.
type link struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

func newLink(t *testing.T, upstream string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "biller", "127.0.0.1:0", upstream)
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	return &link{t, proxy}
}

// trouble is one thing that goes wrong with connections.
type trouble struct {
	kind, stream string
	attributes   map[string]any
}

func (tr trouble) String() string { return fmt.Sprint(tr.kind, " ", tr.stream, " ", tr.attributes) }

const (
	request = "upstream"
	reply   = "downstream"
)

// troubles are all that may happen. "down" refuses connections.
func troubles(rng *rand.Rand) trouble {
	all := []trouble{
		{"down", "", nil},
		{"limit_data", reply, map[string]any{"bytes": 0}}, // carried out, and no answer
		{"limit_data", reply, map[string]any{"bytes": 1 + rng.IntN(300)}},
		{"limit_data", request, map[string]any{"bytes": rng.IntN(600)}},
		{"reset_peer", reply, map[string]any{"timeout": rng.IntN(20)}},
		{"reset_peer", request, map[string]any{"timeout": rng.IntN(20)}},
		{"timeout", reply, map[string]any{"timeout": 50 + rng.IntN(200)}},
		{"timeout", request, map[string]any{"timeout": 50 + rng.IntN(200)}},
		{"latency", reply, map[string]any{"latency": 30, "jitter": 30}},
		{"slicer", reply, map[string]any{"average_size": 7, "size_variation": 5, "delay": 200}},
		{"slicer", request, map[string]any{"average_size": 40, "size_variation": 30, "delay": 200}},
		{"bandwidth", reply, map[string]any{"rate": 20}},
	}
	return all[rng.IntN(len(all))]
}

// with has trouble happen while act runs.
func (l *link) with(tr trouble, act func()) {
	l.t.Helper()
	if tr.kind == "down" {
		listen := l.proxy.Listen
		l.proxy.Stop()
		act()
		l.proxy.Listen = listen
		require.NoError(l.t, l.proxy.Start())
		return
	}
	text, err := json.Marshal(map[string]any{"name": "trouble", "type": tr.kind, "stream": tr.stream, "toxicity": 0.8, "attributes": tr.attributes})
	require.NoError(l.t, err)
	_, err = l.proxy.Toxics.AddToxicJson(strings.NewReader(string(text)))
	require.NoError(l.t, err)
	act()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(l.t, l.proxy.Toxics.RemoveToxic(ctx, "trouble"))
}
