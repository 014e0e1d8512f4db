package ledger

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func confirming(c *Config) { c.Routes[0].Confirm = 15 * time.Minute }

// TestReopen takes delivered records back, settles them each way, and finds
// everything as it was after a restart.
func TestReopen(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		dir := t.TempDir()
		l := open(t, mode, dir, minutely, confirming)
		f := feature(t, l, "calls", sink.Sum)
		for i, subject := range []string{"a", "b", "c", "d"} {
			require.NoError(t, f.Add(subject, int64(1+i)))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		records := deliver(t, l, 0, sink.Delivered)
		require.Len(t, records, 4)
		time.Sleep(10 * time.Minute)
		require.NoError(t, f.Add("e", 100)) // windows go on ending
		time.Sleep(time.Minute)
		synctest.Wait()

		ids := make(map[string]string)
		for _, r := range records {
			ids[r.Subject] = r.ID
			if r.Subject != "d" {
				require.NoError(t, l.Reopen("main", r.ID, "no such customer"))
				require.NoError(t, l.Reopen("main", r.ID, "no such customer"), "again is as good as once")
			}
		}
		line := l.Books()[0]
		require.EqualValues(t, 6, line.Rejected)
		require.EqualValues(t, 4, line.Delivered)
		require.ErrorContains(t, l.Health(), "3 records are quarantined")
		for q, outcome := range l.Quarantine() {
			require.Equal(t, sink.Rejected, outcome)
			require.Equal(t, "no such customer", q.Reason)
		}

		ctx := context.Background()
		require.NoError(t, l.Settle(ctx, "main", ids["a"], sink.Voided, "a gift"))
		require.NoError(t, l.Settle(ctx, "main", ids["b"], sink.Pending, "the customer is there now"))
		require.ErrorIs(t, l.Reopen("main", ids["b"], "late report of the first try"), sink.ErrUnknownRecord)
		found, err := l.Find("main", ids["d"])
		require.NoError(t, err)
		require.ErrorContains(t, l.Settle(ctx, "main", ids["d"], sink.Voided, "?"), "not in quarantine", "whose biller knows nothing of that")
		require.NoError(t, l.SettleFound("main", found, sink.Voided, "undone at the biller's"))
		require.ErrorContains(t, l.SettleFound("main", found, sink.Voided, "again"), "has become voided meanwhile")
		require.NoError(t, l.Reopen("main", ids["d"], "a report about what is undone"), "changes nothing")
		if mode != "memory" {
			require.NoError(t, l.Close(ctx))
			l = open(t, mode, dir, minutely, confirming)
		}
		again := deliver(t, l, 0, sink.Delivered)
		require.Equal(t, ids["b"]+"-2", again[0].ID)
		require.EqualValues(t, 2, again[0].Quantity)
		require.LessOrEqual(t, len(again[0].ID), 64)
		require.NoError(t, l.Reopen("main", again[0].ID, "again"))
		require.NoError(t, l.Settle(ctx, "main", again[0].ID, sink.Pending, "now"))
		require.Equal(t, ids["b"]+"-3", deliver(t, l, 0, sink.Delivered)[0].ID)
		require.NoError(t, l.Settle(ctx, "main", ids["c"], sink.Rejected, "so be it"))

		want := Line{Feature: "calls", Route: "main", Accepted: 110, Delivered: 102, Rejected: 3, Voided: 5}
		time.Sleep(time.Minute)
		synctest.Wait()
		deliver(t, l, 0, sink.Delivered)
		require.Equal(t, []Line{want}, l.Books())
		time.Sleep(time.Hour)
		l.tidy()
		require.Empty(t, l.sealedNow(), "once no biller can change its mind, all is folded")
		require.Equal(t, []Line{want}, l.Books())
		require.ErrorIs(t, l.Reopen("main", ids["d"], "too late"), sink.ErrUnknownRecord)
	})
}

// TestConfirmingStaysWithinItsShare folds early rather than fill the disk.
func TestConfirmingStaysWithinItsShare(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, confirming)
		synctest.Wait()
		l.confirmBytes = 1024 // 8 records
		f := feature(t, l, "calls", sink.Sum)
		time.Sleep(30 * time.Second)
		for range 12 {
			require.NoError(t, f.Add("acme", 1))
			time.Sleep(time.Minute)
			synctest.Wait()
			deliver(t, l, 0, sink.Delivered)
		}
		l.tidy()
		require.Len(t, l.sealedNow(), 8)
		require.EqualValues(t, 12, l.Books()[0].Delivered)
	})
}

func TestDoubtsKnowWhetherTheyAreAlone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir(), minutely, func(c *Config) { c.Routes[0].DedupeWindow = 0 })
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("alone", 1))
		require.NoError(t, f.Add("twice", 1))
		s, err := f.Series("twice", map[string]string{"region": "eu"})
		require.NoError(t, err)
		require.NoError(t, s.Add(2))
		require.NoError(t, f.Add("fine", 1))
		time.Sleep(2 * time.Minute)
		b, err := l.Take(0, 100, nil)
		require.NoError(t, err)
		results := make([]Result, len(b.Records))
		for i, r := range b.Records {
			results[i] = Result{Outcome: sink.InDoubt, Reason: "no answer"}
			if r.Subject == "fine" {
				results[i].Outcome = sink.Delivered
			}
		}
		require.NoError(t, b.Resolve(results))
		doubts := l.Doubts(0)
		require.Len(t, doubts, 3)
		for _, d := range doubts {
			require.Equal(t, d.Subject == "alone", d.Alone, d.Subject)
		}
	})
}

// The void of a delivered record is on paper when the process dies: it holds.
func TestVoidOfDeliveredSurvivesDeath(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		var onlyPaper atomic.Bool
		change := func(c *Config) {
			confirming(c)
			c.step = func(what string) error {
				if onlyPaper.Load() && what != "append quarantine" && what != "sync quarantine" {
					return errDead
				}
				return nil
			}
		}
		l := open(t, mode, dir, change)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 5))
		rotate(t, l)
		records := deliver(t, l, 0, sink.Delivered)
		onlyPaper.Store(true)
		found, err := l.Find("main", records[0].ID)
		require.NoError(t, err)
		err = l.SettleFound("main", found, sink.Voided, "the biller took it back")
		require.ErrorContains(t, err, "takes effect at the next Open")
		abandon(l)
		onlyPaper.Store(false)
		l = open(t, mode, dir, change)
		require.EqualValues(t, 5, l.Books()[0].Voided, "%+v", l.Books())
	})
}

// After an adoption no doubt may be taken for alone in its window.
func TestAdoptedWindowsMayOverlap(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		theirs, own := filepath.Join(base, "theirs"), filepath.Join(base, "own")
		nodedupe := func(c *Config) { c.Routes[0].DedupeWindow = 0 }
		a := open(t, "mapped", theirs, minutely, nodedupe, func(c *Config) { c.Instance = 1 })
		b := open(t, "mapped", own, minutely, nodedupe)
		require.NoError(t, feature(t, a, "calls", sink.Sum).Add("acme", 1))
		require.NoError(t, feature(t, b, "calls", sink.Sum).Add("acme", 1))
		time.Sleep(90 * time.Second)
		synctest.Wait()
		deliver(t, b, 0, sink.InDoubt)
		require.NoError(t, a.Close(context.Background()))
		require.NoError(t, b.Close(context.Background()))
		b = open(t, "mapped", own, minutely, nodedupe, func(c *Config) { c.Adopt = filepath.Join(base, "*") })
		synctest.Wait()
		require.EqualValues(t, 2, b.Books()[0].Accepted)
		require.NoError(t, b.Close(context.Background()))
		b = open(t, "mapped", own, minutely, nodedupe)
		for _, d := range b.Doubts(0) {
			require.False(t, d.Alone, "another record of [%v, %v) from the same directory is pending: %+v", d.Start, d.End, b.Books())
		}
	})
}
