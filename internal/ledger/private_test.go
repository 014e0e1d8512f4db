package ledger

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// TestFilesAreForNobodyElse leads a life in which every kind of file and folder comes
// to be, and looks at their modes.
func TestFilesAreForNobodyElse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes on this system")
	}
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "usage")
			kept := func(c *Config) { c.Retain, c.Sync = 24*time.Hour, SyncAlways }
			synctest.Test(t, func(t *testing.T) {
				l := open(t, mode, dir, kept)
				f := feature(t, l, "calls", sink.Sum)
				require.NoError(t, f.Add("acme", 1))
				rotate(t, l)
				deliver(t, l, 0, sink.Delivered)
				require.NoError(t, l.foldSettled())
				require.NoError(t, f.Add("acme", 2))
				rotate(t, l)
				deliver(t, l, 0, sink.Rejected)
				path := l.sealedNow()[0].path
				require.NoError(t, l.Close(context.Background()))
				require.NoError(t, os.Truncate(path, headSize+blockSize)) // some of it is set aside

				l = open(t, mode, dir, kept)
				require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 3))
				time.Sleep(time.Second)
				synctest.Wait() // for the spare segment

				seen := map[string]bool{}
				require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
					require.NoError(t, err)
					info, err := d.Info()
					require.NoError(t, err)
					want := fs.FileMode(0o600)
					if d.IsDir() {
						want = 0o700
					}
					require.Equal(t, want, info.Mode().Perm(), path)
					name := filepath.Ext(path)
					if d.IsDir() || name == "" {
						name = d.Name()
					}
					seen[name] = true
					return nil
				}))
				for _, name := range []string{"usage", segmentSuffix, journalSuffix, formatFile, lockFile, totalsFile, ".jsonl", retainedDir, sinceFile, damagedDir} {
					require.True(t, seen[name], "%s: there were %v", name, seen)
				}
			})
		})
	}
}
