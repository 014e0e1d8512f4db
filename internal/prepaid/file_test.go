package prepaid

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/license"
)

// Counts that a power cut has lost were used all the same.
func TestLostCountsAreNotUnits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 100)
		for range 60 {
			require.NoError(t, w.call(t.Context(), "s", 1))
		}
		synctest.Wait()
		w.die()
		marked := w.p.file.states[owner{name, "s"}].Used
		require.GreaterOrEqual(t, marked, int64(50))
		w.used.cut("s", 40)
		w.open(10)
		require.Equal(t, int(100-marked), w.use("s", 1))
		w.die()
	})
}

// What a power cut has lost is lost once, however often the process starts again.
func TestRestartsAfterAPowerCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		w.bank.buy("s", 200)
		for range 60 { // the second block is drawn meanwhile
			require.NoError(t, w.call(t.Context(), "s", 1))
			synctest.Wait()
		}
		marked := w.f.Known("s").now().Used
		w.die()
		w.used.cut("s", 60-marked+30)
		again := int(60 - marked) // these may be used again
		used := 60
		for range 3 {
			w.open(100)
			synctest.Wait()
			used += w.use("s", 7) * 7
			w.die()
		}
		require.LessOrEqual(t, used, 200+again)
		require.Greater(t, used, 190)
	})
}

// Before the first attempt of a transfer the disk may take its time: nobody must take the
// time of the note for that of the attempt.
func TestTransfersSayWhenTheyWereAttempted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: t.TempDir(), bank: newBank(), used: &usage{by: map[string]*use{}}}
		w.bank.buy("s", 100)
		w.step = func(what string) error {
			if what == "sync new" || what == "sync" {
				time.Sleep(2 * time.Minute)
			}
			return nil
		}
		w.open(100)
		const none = -time.Second
		var age atomic.Int64
		took := func() time.Duration { return time.Duration(age.Swap(int64(none))) }
		w.bank.fails(func(_ context.Context, read bool, tr license.Transfer) fault {
			if read {
				return fault{}
			}
			age.Store(int64(time.Since(tr.At)))
			if !tr.Doubt {
				time.Sleep(20 * time.Second)
			}
			return fault{before: errNet}
		})
		require.Error(t, w.call(t.Context(), "s", 1))
		require.Less(t, took(), 2*time.Second)
		time.Sleep(sweepEvery)
		synctest.Wait()
		require.Less(t, took(), sweepEvery+2*time.Second, "the first attempt has ended no sooner")
		w.die()
		time.Sleep(time.Hour)
		took()
		w.step = nil
		w.open(100) // the process may have died a moment ago
		synctest.Wait()
		last := took()
		require.NotEqual(t, none, last)
		require.LessOrEqual(t, last, time.Second)
		w.die()
	})
}

// A file that was to be written anew, and may have been, is not written on: what comes
// next is there, and what failed is not.
func TestRewriteThatFailed(t *testing.T) {
	t.Parallel()
	of := func(subject string, drawn int64) line {
		return line{State: &state{Feature: name, Subject: subject, Drawn: drawn}}
	}
	for _, step := range []string{"create", "write", "sync new", "close", "rename", "sync directory", "remove"} {
		b := file{dir: t.TempDir()}
		_, _, err := b.open()
		require.NoError(t, err)
		require.NoError(t, b.write(of("a", 1)))
		b.least = -1 << 40 // it has become too large
		b.step = func(what string) error {
			if what == step {
				return errDead
			}
			return nil
		}
		require.ErrorIs(t, b.write(of("a", 2)), errDead)
		b.step, b.least = nil, 0
		require.NoError(t, b.write(of("b", 3)))
		again := file{dir: b.dir}
		_, _, err = again.open()
		require.NoError(t, err)
		require.EqualValues(t, 1, again.states[owner{name, "a"}].Drawn, step)
		require.EqualValues(t, 3, again.states[owner{name, "b"}].Drawn, step)
		b.close(nil)
	}
}

// Others see by the file's name whether anybody owes anything.
func TestSettledFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 20)
		w.use("s", 1)
		there := func(name string) bool {
			_, err := os.Lstat(filepath.Join(w.dir, name))
			return err == nil
		}
		require.NoError(t, w.close(t.Context()))
		require.True(t, there(settledName) && !there(fileName))
		var err error
		w.p, err = Open(Config{Dir: w.dir})
		require.NoError(t, err)
		require.NoError(t, w.p.Health(), "nothing is held, so nothing must be declared")
		require.NoError(t, w.p.Close(t.Context()))
		w.open(10)
		w.used.byHand("s", 5)
		require.NoError(t, w.close(t.Context()))
		require.True(t, there(fileName) && !there(settledName), "a debt")
		w.open(10)
		w.bank.buy("s", 100)
		time.Sleep(time.Millisecond)
		require.Equal(t, 95, w.use("s", 1))
		require.NoError(t, w.close(t.Context()))
		require.True(t, there(settledName) && !there(fileName))
	})
}

// A transfer is on the disk before it is sent, and its outcome before it counts.
func TestTransfersAreSyncedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.bank.buy("s", 100)
		var synced []byte
		var bad atomic.Int64
		w.p.file.sync = func(f *os.File) (err error) {
			synced, err = os.ReadFile(f.Name())
			return err
		}
		w.bank.fails(func(_ context.Context, read bool, tr license.Transfer) fault {
			if !read && !bytes.Contains(synced, []byte(tr.ID)) {
				bad.Add(1)
			}
			return fault{}
		})
		for range 30 {
			require.NoError(t, w.call(t.Context(), "s", 1))
			synctest.Wait()
			require.Contains(t, string(synced), fmt.Sprintf(`"drawn":%d,`, w.f.Known("s").limited()))
		}
		require.NoError(t, w.close(t.Context()))
		require.Zero(t, bad.Load())
	})
}

// A file cut anywhere, as by a power cut, says what was durable before.
func TestTornFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10)
	w.bank.buy("s", 1000)
	for range 25 {
		require.NoError(t, w.call(t.Context(), "s", 1))
	}
	w.die()
	path := filepath.Join(w.dir, fileName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	last := int64(0)
	for cut := range whole {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o600))
		b := file{dir: w.dir}
		damaged, isCopy, err := b.open()
		require.NoError(t, err)
		require.Zero(t, damaged)
		require.False(t, isCopy)
		if s := b.states[owner{name, "s"}]; s != nil {
			require.GreaterOrEqual(t, s.Drawn, last)
			last = s.Drawn
		}
	}
	require.Greater(t, last, int64(0))
	whole[len(whole)/2] ^= 1
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	w.open(10)
	require.ErrorContains(t, w.p.Health(), "1 damaged line")
	w.die()
}

// The units that a copied directory held are in doubt there.
func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100)
	w.bank.buy("s", 1000)
	for range 10 {
		require.NoError(t, w.call(t.Context(), "s", 1))
	}
	w.die()
	path := filepath.Join(w.dir, fileName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	w.dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, fileName), whole, 0o600))
	for range 2 { // it stays so, written or not
		w.open(100)
		require.Eventually(t, func() bool { return len(w.f.Known("s").now().Aside) == 1 }, 5*time.Second, time.Millisecond)
		require.EqualValues(t, 90, w.f.Known("s").now().Aside[0].Units)
		require.ErrorContains(t, w.p.Health(), "copy")
		require.NoError(t, w.call(t.Context(), "s", 1))
		w.die()
		w.used.mu.Lock() // what has ended may still look
		w.used.by["s"].counted = 10
		w.used.mu.Unlock()
	}
}

// Another balance is not given what was drawn from the one before.
func TestAnotherBalance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100)
	w.bank.buy("s", 100)
	require.NoError(t, w.call(t.Context(), "s", 1))
	w.die()
	w.bank.address = "elsewhere"
	w.open(100)
	require.True(t, isEmpty(w.call(t.Context(), "s", 1)))
	require.NoError(t, w.close(t.Context()))
	require.ErrorContains(t, w.p.Health(), "99 prepaid units are in doubt")
	_, left := w.bank.state("s")
	require.Zero(t, left)
}
