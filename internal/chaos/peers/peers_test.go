package peers

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/sink/httpsink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// biller is the server that all send to.
type biller struct {
	own http.Handler
	ids *memsink.Sink

	mu       sync.Mutex
	messages map[string]int // of the others, by ID
}

func newBiller(t *testing.T) *biller {
	t.Helper()
	b := &biller{ids: memsink.New(), messages: map[string]int{}}
	own, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{secret}, Store: b.ids, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	b.own = own
	return b
}

func (b *biller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/meter" {
		b.own.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	var batch struct {
		Batch []struct {
			Message string `json:"messageId"`
			UUID    string `json:"uuid"`
		} `json:"batch"`
	}
	if err != nil || json.Unmarshal(body, &batch) != nil {
		http.Error(w, "not a batch", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range batch.Batch {
		b.messages[m.Message+m.UUID]++
	}
	_, _ = w.Write([]byte(`{"success":true,"status":1}`))
}

// billed is what came of calls, each once, and how many came again.
func (b *biller) billed() (calls, again int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, times := range b.messages {
		calls, again = calls+1, again+int64(times)-1
	}
	return calls + b.ids.Total(feature, customer), again
}

// run starts a child and kills it after a time; 0: it drains, and ends by itself.
func run(t *testing.T, library, url, dir string, life time.Duration) (taken int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+library, urlEnv+"="+url, dirEnv+"="+dir)
	if life == 0 {
		cmd.Env = append(cmd.Env, drainEnv+"=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	if life > 0 {
		time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
	}
	taken, err = io.Copy(io.Discard, out)
	require.NoError(t, err)
	err = cmd.Wait()
	require.Equal(t, life > 0, err != nil, "%v", err)
	return taken
}

// TestPeersLoseCounts kills processes that count by each library, five times, lets
// another process deliver what it kept, and holds what has come against what was taken.
// A kill may meet one count under way, which may come or not.
func TestPeersLoseCounts(t *testing.T) {
	t.Parallel()
	rounds := int64(5)
	if text := os.Getenv("METER_PEER_ROUNDS"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		rounds = n
	}
	for library := range libraries {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			b, dir := newBiller(t), t.TempDir()
			server := httptest.NewServer(b)
			defer server.Close()
			var taken int64
			for i := range rounds {
				taken += run(t, library, server.URL, dir, time.Duration(1200+i*370%900)*time.Millisecond)
			}
			run(t, library, server.URL, dir, 0)
			billed, again := b.billed()
			t.Logf("%s: %d kills: %d calls acknowledged, %d billed, %d lost, %d sent again", library, rounds, taken, billed, max(0, taken-billed), again)
			require.Positive(t, billed)
			if library == "meter" {
				require.GreaterOrEqual(t, billed, taken)
				require.LessOrEqual(t, billed, taken+rounds)
				require.Zero(t, again)
				return
			}
			require.Less(t, billed, taken, "this one keeps its counts now: compare with another")
		})
	}
}
