package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestCloseSavesWhatWaitsInMemory counts far past the disk budget while no sink
// takes anything: closing writes it all the same.
func TestCloseSavesWhatWaitsInMemory(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir, func(c *Config) { c.MaxDisk = 1 << 20 })
		f := feature(t, l, "calls", sink.Sum)
		const n = 30_000
		for i := range n {
			require.NoError(t, f.Add(fmt.Sprint("subject-", i), 1))
			if i%5000 == 4999 {
				_ = l.Rotate(context.Background()) // may say that it is not durable
			}
		}
		require.ErrorIs(t, l.Health(), ErrFull)
		require.NoError(t, l.Close(context.Background()))

		l = open(t, mode, dir)
		require.Equal(t, []Line{{Feature: "calls", Route: "main", Accepted: n, Pending: n}}, l.Books())
		require.Len(t, deliver(t, l, 0, sink.Delivered), n)
	})
}

// TestCloseSaysWhatIsLost has no disk at all any more.
func TestCloseSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := Open(testConfig(dir, func(c *Config) {
		c.MaxDisk = 1
		c.step = func(what string) error {
			if what == "write blocks" {
				return fmt.Errorf("no space left on device")
			}
			return nil
		}
	}))
	require.NoError(t, err)
	f := feature(t, l, "calls", sink.Sum)
	require.NoError(t, f.Add("ann", 3))
	require.NoError(t, f.Add("bob", 4))
	err = l.Close(context.Background())
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "7 units in 2 records")
}

// TestBooksWhileNothingCanBeSaved reads the books while sealed counts wait for a
// disk that takes none.
func TestBooksWhileNothingCanBeSaved(t *testing.T) {
	t.Parallel()
	l, err := Open(testConfig(t.TempDir(), func(c *Config) {
		c.MaxDisk = 1
		c.step = func(what string) error {
			if what == "write blocks" {
				return fmt.Errorf("no space left on device")
			}
			return nil
		}
	}))
	require.NoError(t, err)
	f := feature(t, l, "calls", sink.Sum)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					l.Books()
					l.OpenRecords(0)
				}
			}
		})
	}
	for range 3 {
		require.NoError(t, f.Add("ann", 1))
		_ = l.Rotate(context.Background())
		for range 200 {
			l.background(l.saveAgain)
		}
	}
	close(stop)
	readers.Wait()
	require.ErrorIs(t, l.Close(context.Background()), ErrFull)
}

// TestFailedAdoptionTakesNoRoom refuses a copy again and again.
func TestFailedAdoptionTakesNoRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "mapped", own)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 1))
		shut(t, l)
		require.NoError(t, os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(own)))
		l = open(t, "mapped", own, func(c *Config) { c.Adopt = filepath.Join(dir, "*") })
		synctest.Wait() // housekeeping adopts, too
		before := l.store.used.Load()
		for range 20 {
			l.adoptOrphans()
		}
		require.ErrorContains(t, l.Health(), "copy of this directory")
		require.InDelta(t, before, l.store.used.Load(), 2*(firstExtent+headSize), "a spare at most")
	})
}

// TestSettledAsPendingIsNoFirstAttempt goes out again as what it is: a sink that
// looks only at first attempts less closely must not take it for one.
func TestSettledAsPendingIsNoFirstAttempt(t *testing.T) {
	t.Parallel()
	eachDiskMode(t, func(t *testing.T, mode, dir string) {
		l := open(t, mode, dir)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("ann", 3))
		rotate(t, l)
		r := attempt(t, l, sink.Rejected)
		require.NoError(t, l.Settle(context.Background(), "main", r.ID, sink.Pending, "customer made"))
		require.Equal(t, 2, attempt(t, l, sink.Pending).Attempt)
		shut(t, l)
		l = open(t, mode, dir)
		require.Equal(t, 2, attempt(t, l, sink.Delivered).Attempt)
	})
}

// A disk with room for a segment but not for its journal: every retry leaks budget and a file.
func TestJournalWithoutRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		l := open(t, "mapped", dir, minutely, func(c *Config) {
			c.Sync = time.Second
			c.MaxDisk = 16 << 20
			c.RefuseWhenFull = true
			c.step = func(what string) error {
				if full.Load() && what == "append journal" {
					return syscall.ENOSPC
				}
				return nil
			}
		})
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		synctest.Wait()
		t.Log("used before:", l.store.used.Load())
		full.Store(true)
		time.Sleep(10 * time.Minute)
		full.Store(false) // somebody made room
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		deliver(t, l, 0, sink.Delivered)
		l.tidy()
		var onDisk int64
		files := glob(t, dir, "*.segment")
		for _, p := range files {
			info, err := os.Stat(p)
			require.NoError(t, err)
			onDisk += info.Size()
		}
		t.Log("used after:", l.store.used.Load(), "on disk:", onDisk, "journals:", len(glob(t, dir, "*.journal")))
		require.NoError(t, f.Add("acme", 1), "health: %v", l.Health())
	})
}
