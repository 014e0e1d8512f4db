package chaos

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/license"
)

// A process dies again and again while many callers use up a quota.

const (
	callers = 64
	limit   = 10_000
)

// metered declares what is called.
func (o order) metered(m *meter.Meter) *meter.Feature {
	return m.Feature("calls", meter.Limit(func(context.Context, string) (license.Quota, error) { return *o.Quota, nil }))
}

// useUp calls from all sides until nothing is left, and says so of every call that was
// counted.
func (o order) useUp() error {
	m, err := meter.Open(o.queueConfig())
	if err != nil {
		return err
	}
	f := o.metered(m)
	ctx := meter.WithCaller(context.Background(), meter.Caller{Subject: "s"})
	var calling sync.WaitGroup
	errs := make(chan error, callers)
	for c := range callers {
		rng := rand.New(rand.NewPCG(o.Seed, uint64(c)))
		calling.Go(func() {
			for {
				hold := meter.Hold(1 + rng.Int64N(3))
				_, call, err := f.Begin(ctx, hold)
				if refused, ok := errors.AsType[*meter.RefusedError](err); ok && refused.Reason == license.OverQuota {
					if refused.Total.Quantity == limit {
						return
					}
					continue // others hold the rest, or it is less than this one wants
				}
				if err == nil && rng.IntN(8) == 0 {
					call.Cancel()
					continue
				}
				if err == nil {
					err = errors.Join(call.SetQuantity(1), call.Commit())
				}
				if err == nil {
					_, err = os.Stdout.WriteString("counted\n")
				}
				if err != nil {
					errs <- err
					return
				}
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
				if rng.IntN(500) == 0 {
					_ = m.Flush(context.Background()) // what was delivered is folded
				}
			}
		})
	}
	calling.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	return m.Shutdown(context.Background())
}

// TestKillCallers kills a process whose callers use up a quota, until it is: over all
// lives as many calls are let through and counted as there is quota, those included
// that died before they were told.
func TestKillCallers(t *testing.T) {
	t.Parallel()
	kills := 16
	if testing.Short() {
		kills = 5
	}
	now := time.Now()
	first := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		quota license.Quota
		sync  time.Duration
	}{
		"month":         {license.Quota{Limit: limit}, meter.SyncNever},
		"own":           {license.Quota{Limit: limit, Start: now.Add(-time.Hour), End: now.Add(time.Hour)}, meter.SyncNever},
		"own, synced":   {license.Quota{Limit: limit, Start: now.Add(-time.Hour), End: now.Add(time.Hour)}, 50 * time.Millisecond},
		"own, by month": {license.Quota{Limit: limit, Start: first.AddDate(0, -1, 0), End: first.AddDate(0, 2, 0)}, meter.SyncNever},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "month" && now.Add(5*time.Minute).UTC().Month() != now.UTC().Month() {
				t.Skip("SKIPPED: the month ends while the test would run")
			}
			w := newWorld(t, seed(t))
			rng := rand.New(rand.NewPCG(w.seed, 4))
			o := order{Root: w.root, Sync: test.sync, Quota: &test.quota}
			told, died := 0, 0
			for killed := true; killed; {
				require.Less(t, died, kills+2)
				o.Seed = rng.Uint64()
				after := 1 + rng.IntN(2*limit/kills)
				if died >= kills {
					after = 0 // lives on
				}
				n := 0
				n, killed = o.callUntil(t, after)
				told += n
				require.LessOrEqual(t, told, limit, "seed %d", w.seed)
				if killed {
					died++
				}
			}
			m, err := meter.Open(o.queueConfig())
			require.NoError(t, err)
			require.NoError(t, m.Health())
			f := o.metered(m)
			_, _, err = f.Begin(meter.WithCaller(t.Context(), meter.Caller{Subject: "s"}))
			require.ErrorContains(t, err, "over-quota")
			require.EqualValues(t, limit, f.Total("s").Quantity, "seed %d", w.seed)
			require.NoError(t, m.Flush(t.Context()))
			require.NoError(t, m.Shutdown(t.Context()))
			lines, torn, err := readLines(filepath.Join(w.root, "usage.jsonl"))
			require.NoError(t, err)
			require.Zero(t, torn)
			billed := int64(0)
			for _, l := range lines {
				billed += l.Quantity
			}
			require.EqualValues(t, limit, billed, "seed %d", w.seed)
			require.LessOrEqual(t, limit-told, died*callers, "seed %d: more than were under way", w.seed)
			t.Logf("%d kills, %d calls were told, %d were not", died, told, limit-told)
		})
	}
}

// callUntil starts a process and kills it after some calls, if not 0. It returns how
// many were told, and whether it was killed.
func (o order) callUntil(t *testing.T, after int) (told int, killed bool) {
	t.Helper()
	cmd := command(o)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if told++; told == after {
			_ = cmd.Process.Kill() // what it has written until then is read all the same
		}
	}
	require.NoError(t, lines.Err())
	err = cmd.Wait()
	require.LessOrEqual(t, cmd.ProcessState.ExitCode(), 0, "the process failed: %v", err)
	return told, err != nil
}
