package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// balance requires that the books hold exactly what was accepted.
func balance(t *testing.T, l *Ledger, accepted int64, where ...any) {
	t.Helper()
	var sum int64
	for _, line := range l.Books() {
		require.Equal(t, line.Accepted, line.Pending+line.Delivered+line.InDoubt+line.Rejected+line.Voided+line.Superseded+line.Damaged)
		sum += line.Accepted
	}
	require.Equal(t, accepted, sum, where...)
}

// TestGrowthIsNoCut looks for a cut while a segment's file grows under its map: one that
// is seen where none is would have counting go on in memory, which a kill takes.
func TestGrowthIsNoCut(t *testing.T) {
	t.Parallel()
	const step, most = 64, 1 << 20 // blocks
	for range 3 {
		seg := open(t, "mapped", quickDir(t)).active.Load()
		grown := make(chan error, 1)
		go func() {
			var err error
			for n := 0; n < most && err == nil; n += step {
				_, _, err = seg.allocate(step)
			}
			grown <- err
		}()
		for growing := true; growing; {
			select {
			case err := <-grown:
				require.NoError(t, err)
				growing = false
			default:
				require.False(t, seg.cut())
			}
		}
	}
}

// TestTruncationUnderTheMap cuts the active segment's file short while several
// goroutines count in it.
func TestTruncationUnderTheMap(t *testing.T) {
	t.Parallel()
	for what, size := range map[string]int64{"to nothing": 0, "to its head": headSize, "within a page": headSize + 100, "through a slot": headSize + 128 + 20, "within the second page": headSize + 4096 + 100} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			const writers, subjects, journaled, each = 4, 50, 10, 200
			l := open(t, "mapped", quickDir(t))
			f := feature(t, l, "calls", sink.Sum)
			for i := range subjects {
				require.NoError(t, f.Add(fmt.Sprint("s", i), journaled))
			}
			require.NoError(t, l.active.Load().journal.sync())
			for i := range subjects {
				require.NoError(t, f.Add(fmt.Sprint("s", i), 1)) // not safe yet
			}
			require.NoError(t, os.Truncate(l.active.Load().path, size))
			var all sync.WaitGroup
			for range writers {
				all.Go(func() {
					for n := range each {
						for i := range subjects {
							if err := f.Add(fmt.Sprint("s", (i+n)%subjects), 1); err != nil {
								t.Errorf("a request failed: %v", err)
							}
						}
					}
				})
			}
			all.Wait()
			_ = l.Rotate(context.Background())
			require.Error(t, l.Health())
			records := deliver(t, l, 0, sink.Delivered)
			seen := make(map[string]bool)
			for _, r := range records {
				require.False(t, seen[r.ID])
				seen[r.ID] = true
			}
			for i := range subjects {
				got := sum(records, "calls", fmt.Sprint("s", i))
				require.GreaterOrEqual(t, got, int64(journaled+writers*each), "s%d: lost what was safe, or what came after the fault", i)
				require.LessOrEqual(t, got, int64(journaled+1+writers*each), "s%d", i)
			}
		})
	}
}

// TestCommitOfWhatIsGone loses the memory between a count and its commit: what can't be
// read was not made safe.
func TestCommitOfWhatIsGone(t *testing.T) {
	t.Parallel()
	for what, size := range cuts {
		l := open(t, "mapped", quickDir(t), always)
		needMapped(t, l)
		f := feature(t, l, "calls", sink.Sum)
		for i := range 40 {
			require.NoError(t, f.Add(fmt.Sprint(i), 1))
		}
		seg := l.active.Load()
		require.NoError(t, os.Truncate(seg.path, size))
		require.ErrorIs(t, seg.journal.commit(30), ErrUnsynced, what)
		require.ErrorIs(t, seg.journal.sync(), ErrUnsynced, what)
		_ = l.Rotate(context.Background())
		for _, r := range deliver(t, l, 0, sink.Delivered) {
			require.EqualValues(t, 1, r.Quantity)
		}
		require.EqualValues(t, 40, l.Books()[0].Delivered, what)
	}
}

// TestOneStepFails lets every step on disk fail once, as a bad sector would, in
// a process that lives on.
func TestOneStepFails(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for n := 0; ; n++ {
				dir, done := quickDir(t), false
				synctest.Test(t, func(t *testing.T) { done = !surviveOneStep(t, mode, dir, n) })
				if done {
					require.Greater(t, n, 40)
					return
				}
				if testing.Short() {
					n += 4
				}
			}
		})
	}
}

// surviveOneStep reports whether the life was long enough for step n to fail.
func surviveOneStep(t *testing.T, mode, dir string, n int) bool {
	var mu sync.Mutex // guards what follows: the background takes steps, too
	left, name := n, ""
	cfg := testConfig(dir, func(c *Config) { c.Sync = SyncAlways })
	cfg.step = func(what string) error {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == -1 {
			name = what
			return errors.New("input/output error")
		}
		return nil
	}
	which := func() string { mu.Lock(); defer mu.Unlock(); return name }
	failed := func() bool { return which() != "" }
	l, err := openMode(cfg, mode)
	if err != nil {
		require.True(t, failed())
		l, err = openMode(cfg, mode) // Open refused: nothing was counted
		require.NoError(t, err)
	}
	defer func() { l.Close(context.Background()) }()
	synctest.Wait() // what Open tidies is tidy
	where := func() string { return fmt.Sprintf("step %d (%s) failed", n, which()) }
	f := feature(t, l, "calls", sink.Sum)
	b := newBiller()
	var accepted, known int64
	q := Quota{Limit: 1 << 40, Start: time.Now().Unix(), End: time.Now().Add(1000 * time.Hour).Unix()}
	events := make(map[string]bool)
	send := func(as sink.Outcome) {
		batch, err := l.Take(0, 100, nil)
		if err != nil {
			require.True(t, failed(), "%v", err)
		}
		if batch == nil {
			return
		}
		results := make([]Result, len(batch.Records))
		for i, r := range batch.Records {
			require.Zero(t, b.sends[r.ID], "%s: sent again after it was delivered", where())
			if as == sink.Delivered {
				b.apply(t, r)
			}
			results[i] = Result{Outcome: as}
		}
		if err := batch.Resolve(results); err != nil {
			require.True(t, failed(), "%v", err)
		}
	}
	for i, as := range []sink.Outcome{sink.Delivered, sink.Pending, sink.InDoubt, sink.Rejected, sink.Delivered} {
		for _, subject := range []string{"acme", "bolt", fmt.Sprint("new", i)} {
			if err := f.Add(subject, 7); err != nil {
				require.ErrorIs(t, err, ErrUnsynced, where())
			}
			accepted += 7
		}
		tally, _, err := f.Reserve(nil, "bounded", &q, 3, true)
		require.NoError(t, err, where())
		if err := f.plain.find("bounded").AddHeld(3, tally, 3, true); err != nil {
			require.ErrorIs(t, err, ErrUnsynced, where())
		}
		accepted += 3
		for _, id := range []string{fmt.Sprint(i), fmt.Sprint(i), "0", fmt.Sprint("again ", i)} {
			err := f.event("acme", id, 1)
			if err != nil {
				require.ErrorIs(t, err, ErrUnsynced, where())
			}
			events[id] = true
		}
		accepted += int64(len(events)) - known
		known = int64(len(events))
		_ = l.Rotate(context.Background())
		send(as)
		for r := range l.Quarantine() {
			_ = l.Settle(context.Background(), r.Route, r.ID, sink.Voided, "as told")
		}
		_ = l.foldSettled()
		balance(t, l, accepted, where())
	}
	time.Sleep(2 * time.Second) // for whoever retries
	require.NoError(t, f.Add("acme", 1))
	accepted++
	abandon(l)

	l, err = openMode(testConfig(dir), mode)
	require.NoError(t, err, where())
	synctest.Wait()
	balance(t, l, accepted, where())
	f = feature(t, l, "calls", sink.Sum)
	tally := f.Tally("bounded")
	require.NotNil(t, tally, where())
	s := tally.Standing()
	require.Equal(t, []int64{5 * 3, q.Start, q.End}, []int64{s.Counted, s.Start, s.End}, where())
	for id := range events {
		require.NoError(t, f.event("acme", id, 1), where())
	}
	balance(t, l, accepted, where())
	send(sink.Delivered)
	require.NoError(t, l.foldSettled(), where())
	balance(t, l, accepted, where())
	for _, line := range l.Books() {
		var applied int64
		for _, q := range b.applied {
			applied += q
		}
		require.Equal(t, applied, line.Delivered, where())
	}
	return failed()
}

func TestDirectoryDeletedUnderTheProcess(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, mode, dir)
				f := feature(t, l, "calls", sink.Sum)
				require.NoError(t, f.Add("acme", 5))
				require.NoError(t, l.Rotate(context.Background()))
				require.NoError(t, f.Add("acme", 7))
				synctest.Wait()
				require.NoError(t, os.RemoveAll(dir))
				for range 3 {
					_ = l.Rotate(context.Background())
					require.NoError(t, f.Add("acme", 11))
					time.Sleep(2 * time.Hour)
				}
				balance(t, l, 45)
				require.Error(t, l.Health())
				b, err := l.Take(0, 100, nil)
				require.True(t, err != nil || b != nil, "sent or said why not")
				_ = l.Close(context.Background())
			})
		})
	}
}

func TestRefusedDirectories(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	ledgerAt := func(name string) string {
		dir := filepath.Join(base, name)
		l := open(t, "mapped", dir)
		require.NoError(t, feature(t, l, "calls", sink.Sum).Add("acme", 5))
		require.NoError(t, l.Close(context.Background()))
		return dir
	}
	refused := func(dir string, is error, says string) {
		t.Helper()
		_, err := Open(testConfig(dir))
		require.Error(t, err)
		if is != nil {
			require.ErrorIs(t, err, is)
		}
		require.ErrorContains(t, err, says)
	}
	real := ledgerAt("real")
	require.NoError(t, os.Symlink(real, filepath.Join(base, "link")))
	refused(filepath.Join(base, "link"), nil, "symbolic link")
	require.NoError(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	refused(filepath.Join(base, "file"), nil, "not a directory")

	future := ledgerAt("future")
	require.NoError(t, os.WriteFile(filepath.Join(future, formatFile), []byte("meter ledger 2\n"), 0o600))
	refused(future, ErrFormat, "meter ledger 2")

	mixed := ledgerAt("mixed")
	segments, err := filepath.Glob(filepath.Join(mixed, "*"+segmentSuffix))
	require.NoError(t, err)
	require.Len(t, segments, 1)
	data, err := os.ReadFile(segments[0])
	require.NoError(t, err)
	for _, at := range []int{0, mirrorAt} {
		order.PutUint32(data[at+8:], formatVersion+1)
		order.PutUint32(data[at+whoSize-4:], checksum(uuid(data[at+16:at+32]), data[at:at+whoSize-4]))
	}
	require.NoError(t, os.WriteFile(segments[0], data, 0o600))
	refused(mixed, ErrFormat, "format 2")

	foreign := filepath.Join(base, "foreign")
	require.NoError(t, os.Mkdir(foreign, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("dear"), 0o600))
	refused(foreign, ErrFormat, "letter.txt")
	kept, err := os.ReadFile(filepath.Join(foreign, "letter.txt"))
	require.NoError(t, err)
	require.Equal(t, "dear", string(kept))

	// A file that somebody else put beside ours is left alone.
	require.NoError(t, os.WriteFile(filepath.Join(real, "notes.txt"), []byte("dear"), 0o600))
	l := open(t, "mapped", real)
	refused(real, ErrLocked, real)
	require.NoError(t, l.Health())
	require.FileExists(t, filepath.Join(real, "notes.txt"))
	balance(t, l, 5)
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir := mountTmpfs(t, "ro,size=64k")
	_, err := Open(testConfig(dir))
	require.ErrorContains(t, err, "not writable")
	require.ErrorContains(t, err, dir)
}
