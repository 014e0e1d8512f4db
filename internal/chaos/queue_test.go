package chaos

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink/filesink"
)

// The consumer of a queue dies and the queue delivers again whatever was not
// acknowledged, and now and then what was.

const consumers = 3

// worth is in units; subjects share messages unevenly.
func worth(message int) int64      { return int64(message%7 + 1) }
func receiver(message int) string  { return fmt.Sprint("tenant-", message%5) }
func messageID(message int) string { return fmt.Sprint("orders/", message) }

func (o order) queueConfig() meter.Config {
	return meter.Config{
		Dir:    filepath.Join(o.Root, "ledger"),
		Sinks:  []meter.Route{{Name: "file", Sink: filesink.New(filesink.Config{Path: filepath.Join(o.Root, "usage.jsonl"), LockWait: 10 * time.Second})}},
		Logger: slog.New(slog.DiscardHandler),
		Sync:   o.Sync,
		Window: time.Second,
	}
}

// consume counts messages from the one that it is told on, and says which are
// acknowledged, until it is killed or has them all.
func (o order) consume() error {
	m, err := meter.Open(o.queueConfig())
	if err != nil {
		return err
	}
	f := m.Feature("orders")
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return err
	}
	var consuming sync.WaitGroup
	errs := make(chan error, consumers)
	for c := range consumers {
		rng := rand.New(rand.NewPCG(o.Seed, uint64(c)))
		consuming.Go(func() {
			for n := o.From; n < o.To; n++ { // each of them consumes all
				if rng.IntN(4) == 0 {
					continue // but some come once only
				}
				err := f.AddEvent(context.Background(), meter.Event{ID: messageID(n), Subject: receiver(n), Quantity: worth(n)})
				if err != nil {
					errs <- err
					return
				}
				// One write: the pipe keeps it whole.
				if _, err := os.Stdout.WriteString(strconv.Itoa(n) + "\n"); err != nil {
					errs <- err
					return
				}
				if rng.IntN(200) == 0 {
					_ = m.Flush(context.Background())
				}
			}
		})
	}
	consuming.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	return m.Shutdown(context.Background())
}

// TestKillConsumers kills consumers until every message was acknowledged: each is
// billed exactly once.
func TestKillConsumers(t *testing.T) {
	t.Parallel()
	messages := 2000
	if testing.Short() {
		messages = 1000
	}
	for _, sync := range []time.Duration{meter.SyncAlways, 50 * time.Millisecond, meter.SyncNever} {
		t.Run(sync.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed(t)+uint64(sync))
			rng := rand.New(rand.NewPCG(w.seed, 3))
			acknowledged, from, kills := make(map[int]bool), 0, 0
			for lives := 0; len(acknowledged) < messages; lives++ {
				require.Less(t, lives, 400)
				o := order{Root: w.root, Seed: rng.Uint64(), Sync: sync, Queue: true, From: from, To: messages}
				last := o.consumeUntil(t, acknowledged, rng)
				if last {
					kills++
				}
				// The queue begins with the first that was not acknowledged, and a bit before.
				from = 0
				for acknowledged[from] {
					from++
				}
				from = max(0, from-rng.IntN(50))
			}
			o := order{Root: w.root, Sync: sync}
			m, err := meter.Open(o.queueConfig())
			require.NoError(t, err)
			require.NoError(t, m.Health())
			f := m.Feature("orders")
			want := make(map[string]int64)
			for n := range messages { // everything once more
				require.NoError(t, f.AddEvent(t.Context(), meter.Event{ID: messageID(n), Subject: receiver(n), Quantity: worth(n)}))
				want[receiver(n)] += worth(n)
			}
			require.NoError(t, m.Flush(t.Context()))
			require.NoError(t, m.Shutdown(t.Context()))
			lines, torn, err := readLines(filepath.Join(w.root, "usage.jsonl"))
			require.NoError(t, err)
			require.Zero(t, torn)
			got := make(map[string]int64)
			for _, l := range lines {
				got[l.Subject] += l.Quantity
			}
			require.Equal(t, want, got, "seed %d", w.seed)
			t.Logf("%d messages, %d kills", messages, kills)
		})
	}
}

// consumeUntil starts a consumer and kills it after some messages. It reports
// whether that was a kill.
func (o order) consumeUntil(t *testing.T, acknowledged map[int]bool, rng *rand.Rand) (killed bool) {
	t.Helper()
	cmd := command(o)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	left := 1 + rng.IntN(o.To/3)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			acknowledged[n] = true
		}
		if left--; left == 0 {
			_ = cmd.Process.Kill() // what it has written until then is read all the same
		}
	}
	require.NoError(t, lines.Err())
	err = cmd.Wait()
	require.LessOrEqual(t, cmd.ProcessState.ExitCode(), 0, "the consumer failed: %v", err)
	return err != nil
}
