package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

func always(c *Config) { c.Sync = SyncAlways }

// countAndDie counts under SyncAlways and leaves the files as a dead process
// does. It returns what was acknowledged.
func countAndDie(t *testing.T, mode, dir string) map[string]int64 {
	l, err := openMode(testConfig(dir, always), mode)
	require.NoError(t, err)
	calls, peak, seats := feature(t, l, "calls", sink.Sum), feature(t, l, "peak", sink.Max), feature(t, l, "seats", sink.Last)
	acked := map[string]int64{}
	hot, err := calls.Series("hot", nil)
	require.NoError(t, err)
	p, err := hot.register()
	require.NoError(t, err)
	hot.divide(p.seg)
	require.NotNil(t, hot.spread.Load())
	for i := range 200 {
		subject := fmt.Sprint("s", i%90)
		require.NoError(t, calls.Add(subject, int64(i)))
		acked["calls/"+subject] += int64(i)
		require.NoError(t, hot.Add(1))
		acked["calls/hot"]++
		require.NoError(t, peak.Set("p", int64(i*7%50)))
		acked["peak/p"] = max(acked["peak/p"], int64(i*7%50))
		require.NoError(t, seats.Set("p", int64(i*7%50)))
		acked["seats/p"] = int64(i * 7 % 50)
	}
	abandon(l)
	return acked
}

func recovered(t *testing.T, mode, dir string) map[string]int64 {
	l := open(t, mode, dir)
	got := map[string]int64{}
	for _, r := range deliver(t, l, 0, sink.Delivered) {
		got[r.Feature+"/"+r.Subject] += r.Quantity
	}
	require.NoError(t, l.Health())
	require.NoError(t, l.Close(context.Background()))
	return got
}

func glob(t *testing.T, dir, pattern string) []string {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	return paths
}

// TestPowerCut loses pages of the mapped file that were never written back; what
// SyncAlways acknowledged is in the journal.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	const page = 4096
	for name, lose := range map[string]func(pages int) []int{
		"nothing":    func(int) []int { return nil },
		"everything": func(n int) []int { return rand.Perm(n) },
		"half":       func(n int) []int { return rand.Perm(n)[:n/2] },
		"first":      func(int) []int { return []int{0} },
		"second":     func(int) []int { return []int{1} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			acked := countAndDie(t, "mapped", dir)
			for _, path := range glob(t, dir, "*"+segmentSuffix) {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				require.NoError(t, err)
				info, err := f.Stat()
				require.NoError(t, err)
				for _, p := range lose(int(info.Size()-headSize) / page) {
					_, err := f.WriteAt(make([]byte, page), headSize+int64(p*page))
					require.NoError(t, err)
				}
				require.NoError(t, f.Close())
			}
			require.Equal(t, acked, recovered(t, "mapped", dir))
		})
	}
}

func TestHeapSurvivesInItsJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := countAndDie(t, "heap", dir)
	require.Empty(t, glob(t, dir, "*"+segmentSuffix))
	require.Equal(t, acked, recovered(t, "heap", dir))
}

// TestTornJournal cuts the journal of a heap segment anywhere: what is left is
// a state that there was, and no count goes to anybody else.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	acked := countAndDie(t, "heap", from)
	var full []byte
	var name string
	for _, path := range glob(t, from, "*"+journalSuffix) {
		if data, err := os.ReadFile(path); err == nil && len(data) > len(full) {
			full, name = data, filepath.Base(path)
		}
	}
	step := 4999
	if thorough() {
		step = 97
	}
	for cut := journalPreamble; cut < len(full); cut += step {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, formatFile), fmt.Appendf(nil, "%s%d\n", formatText, formatVersion), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), full[:cut], 0o600))
		l := open(t, "heap", dir, func(c *Config) { c.Routes[0].DedupeWindow = sink.Forever })
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			k := r.Feature + "/" + r.Subject
			if r.Kind == sink.Sum {
				require.LessOrEqual(t, r.Quantity, acked[k], k)
			} else {
				require.Less(t, r.Quantity, int64(50), k)
			}
		}
		require.NoError(t, l.Close(context.Background()))
	}
}

// TestJournalReplacedAfterFailedSync never trusts a file again whose sync
// failed, and says what that means for the count.
func TestJournalReplacedAfterFailedSync(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var mu sync.Mutex
			fail := map[string]bool{}
			l, err := openMode(testConfig(dir, always, func(c *Config) {
				c.step = func(what string) error {
					mu.Lock()
					defer mu.Unlock()
					if fail[what] {
						return errors.New("input/output error")
					}
					return nil
				}
			}), mode)
			require.NoError(t, err)
			set := func(what string, on bool) { mu.Lock(); fail[what] = on; mu.Unlock() }
			f := feature(t, l, "calls", sink.Sum)
			require.NoError(t, f.Add("acme", 1))
			first := glob(t, dir, l.active.Load().head.uuid.String()+"*"+journalSuffix)
			require.Len(t, first, 1)

			set("sync journal", true)
			set("create .journal", true)
			err = f.Add("acme", 2)
			require.ErrorIs(t, err, ErrUnsynced, "counted, so it must not be repeated")
			require.ErrorIs(t, l.Health(), ErrUnsynced)
			total, _, _ := f.Total("acme")
			require.EqualValues(t, 3, total)

			set("sync journal", false)
			set("create .journal", false)
			require.NoError(t, f.Add("acme", 4))
			require.NoError(t, l.Health())
			second := glob(t, dir, l.active.Load().head.uuid.String()+"*"+journalSuffix)
			require.Len(t, second, 1)
			require.NotEqual(t, first, second, "the failed file is not used again")
			abandon(l)
			require.Equal(t, map[string]int64{"calls/acme": 7}, recovered(t, mode, dir))
		})
	}
}

// TestCommitsShareSyncs lets many callers wait for the disk at once.
func TestCommitsShareSyncs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		syncs := 0
		l, err := Open(testConfig(dir, always, func(c *Config) {
			c.step = func(what string) error {
				if what == "sync journal" {
					mu.Lock()
					syncs++
					mu.Unlock()
				}
				return nil
			}
		}))
		require.NoError(t, err)
		defer l.Close(context.Background())
		f := feature(t, l, "calls", sink.Sum)
		var wg sync.WaitGroup
		const callers, each = 64, 20
		for i := range callers {
			wg.Go(func() {
				for range each {
					require.NoError(t, f.Add(fmt.Sprint(i), 1))
				}
			})
		}
		wg.Wait()
		mu.Lock()
		t.Logf("%d counts took %d syncs", callers*each, syncs)
		require.Less(t, syncs, callers*each/2)
		mu.Unlock()
		require.NoError(t, l.Close(context.Background()))
	})
}
