package disk

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// noWait is a context that has ended: Lock tries once.
func noWait() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestLockExcludesAndReleases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(noWait(), path)
	require.NoError(t, err)
	_, err = Lock(noWait(), path)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, path)

	require.NoError(t, first.Close())
	require.NoError(t, first.Close(), "a second Close does nothing")
	second, err := Lock(noWait(), path)
	require.NoError(t, err)
	require.NoError(t, first.Close(), "a late Close must not release somebody else's lock")
	_, err = Lock(noWait(), path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, second.Close())
}

func TestLockCreatesPrivateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(noWait(), path)
	require.NoError(t, err)
	defer l.Close()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestLockWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		first, err := Lock(noWait(), path)
		require.NoError(t, err)
		start := time.Now()

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = Lock(ctx, path)
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(start), "waited to the end, and no longer")

		time.AfterFunc(7*time.Second, func() { first.Close() })
		second, err := Lock(t.Context(), path)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), 10*time.Second)
		require.LessOrEqual(t, time.Since(start), 10*time.Second+maxLockPoll)
		require.NoError(t, second.Close())
	})
}

func TestLockPollsSoonAtFirst(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		first, err := Lock(noWait(), path)
		require.NoError(t, err)
		time.AfterFunc(firstLockPoll/2, func() { first.Close() })
		start := time.Now()
		second, err := Lock(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, firstLockPoll, time.Since(start))
		require.NoError(t, second.Close())
	})
}

func TestLockAcrossProcesses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	cmd, release := lockInChild(t, path)
	_, err := Lock(noWait(), path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, release.Close())
	require.NoError(t, cmd.Wait())
	l, err := Lock(noWait(), path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestLockOfKilledProcessIsFree(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	cmd, _ := lockInChild(t, path)
	_, err := Lock(noWait(), path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), "killed")
	l, err := Lock(noWait(), path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// Between opening and locking, the file may be deleted or replaced; its lock is
// then worth nothing, since the next process locks the new file.
func TestLockOfFileNoLongerNamed(t *testing.T) {
	t.Parallel()
	replace := func(path string) error {
		if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}
	for name, change := range map[string]func(path string) error{"deleted": os.Remove, "replaced": replace} {
		f := create(t, t.TempDir(), "lock")
		require.NoError(t, change(f.Name()), name)
		_, err := claim(f, f.Name())
		require.ErrorIs(t, err, ErrLocked, name)
		require.ErrorIs(t, f.Close(), os.ErrClosed, "%s: given up", name)

		l, err := Lock(noWait(), f.Name())
		require.NoError(t, err, "%s: the file now named is free", name)
		_, err = Lock(noWait(), f.Name())
		require.ErrorIs(t, err, ErrLocked, name)
		require.NoError(t, l.Close())
	}
	f := create(t, t.TempDir(), "lock")
	l, err := claim(f, f.Name())
	require.NoError(t, err, "left alone")
	require.NoError(t, l.Close())
}

// The file a waiter saw first is gone when the lock comes free.
func TestLockFollowsReplacedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		first, err := Lock(noWait(), path)
		require.NoError(t, err)
		start := time.Now()
		time.AfterFunc(time.Second, func() { // somebody deletes the file and locks a new one
			require.NoError(t, os.Remove(path))
			second, err := Lock(noWait(), path)
			require.NoError(t, err)
			require.NoError(t, first.Close())
			time.AfterFunc(time.Minute, func() { second.Close() })
		})
		third, err := Lock(t.Context(), path)
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), time.Minute, "waited for the holder of the new file")
		require.NoError(t, third.Close())
	})
}

func TestLockRefusesSymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := filepath.Join(dir, "lock")
	require.NoError(t, os.Symlink(filepath.Join(dir, "elsewhere"), link))
	_, err := Lock(noWait(), link)
	require.ErrorContains(t, err, "symbolic link")
	require.NotErrorIs(t, err, ErrLocked)
	require.NoFileExists(t, filepath.Join(dir, "elsewhere"))
}
