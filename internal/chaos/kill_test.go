package chaos

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink/httpsink"
)

func number(t *testing.T, env string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, env)
	return n
}

func seed(t *testing.T) uint64 { return number(t, "METER_KILL_SEED", rand.Uint64()) }

func rounds(t *testing.T, otherwise uint64) uint64 {
	if testing.Short() {
		otherwise /= 6
	}
	return number(t, "METER_KILL_ROUNDS", otherwise)
}

// TestKill is the promise of the whole project: whatever was acknowledged is
// billed, once, whenever the process dies.
func TestKill(t *testing.T) {
	t.Parallel()
	killRounds(t, rounds(t, 60), none)
}

// TestKillWithOutages is TestKill with a sink that fails in every way it may.
func TestKillWithOutages(t *testing.T) {
	t.Parallel()
	killRounds(t, max(4, rounds(t, 60)/4), outages)
}

// TestKillWithoutDedupe is TestKillWithOutages with a biller that bills whatever it is
// sent. No record may be sent again that it may have, until somebody has looked.
func TestKillWithoutDedupe(t *testing.T) {
	t.Parallel()
	killRounds(t, max(4, rounds(t, 60)/4), forgets)
}

// TestKillBeforeAServer is TestKillWithOutages with a biller that outlives the processes:
// a server within this one, whose answers to a process that was killed nobody reads.
func TestKillBeforeAServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, seed(t))
	w.store = order{Root: w.root, Seed: w.seed}.file(0)
	h, err := httpsink.NewHandler(httpsink.HandlerConfig{Secrets: []string{billerSecret}, Store: w.store, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	var taken atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		taken.Add(1)
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	w.killRounds(max(4, rounds(t, 60)/4), none)
	require.Positive(t, taken.Load())
	w.log()
}

// killRounds spreads n kills over some directories. Windows begin on seconds of
// their own, so one directory can't have many more lives than there are seconds.
func killRounds(t *testing.T, n uint64, f fault) {
	first, dirs := seed(t), number(t, "METER_KILL_DIRS", min(max(n/15, 1), 8))
	for dir := range dirs {
		t.Run(fmt.Sprint("dir", dir), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, first+dir)
			w.forgets = f == forgets
			w.killRounds(n/dirs+min(1, n%dirs), f)
			w.log()
		})
	}
}

func (w *world) killRounds(n uint64, f fault) {
	for i := range n {
		rng := rand.New(rand.NewPCG(w.seed, i))
		o := w.order(rng)
		o.Fault = f
		w.kill(o, randomMoment(rng))
		switch {
		case i%50 == 49 || i == n-1:
			require.Empty(w.t, w.settle(), "seed %d, round %d", w.seed, i)
		case rng.IntN(10) == 0:
			w.visit()
		}
	}
}
