package filesink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/filesink"
	"github.com/inprocess/meter/sink/sinktest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func record(n int) sink.Record {
	return sink.Record{
		ID: fmt.Sprintf("r-%d", n), Feature: "tax-report", Subject: "cus_1", Quantity: int64(n + 1),
		Start: noon, End: noon.Add(time.Minute), Attempt: 1,
	}
}

func recordsOf(from, to int) []sink.Record {
	var records []sink.Record
	for n := from; n < to; n++ {
		records = append(records, record(n))
	}
	return records
}

type line struct {
	ID, Feature, Subject string
	Dimensions           map[string]string
	Kind                 string
	Quantity             int64
}

// paths lists the files of records at path, oldest first, path last.
func paths(t testing.TB, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".2*Z")
	require.NoError(t, err)
	return append(names, path)
}

// lines reads every complete line of every file at path.
func lines(t testing.TB, path string) []line {
	t.Helper()
	var all []line
	for _, name := range paths(t, path) {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // killed before the first, or between two
		}
		require.NoError(t, err)
		for text := range strings.Lines(string(data)) {
			var l line
			if strings.HasSuffix(text, "\n") && json.Unmarshal([]byte(text), &l) == nil {
				all = append(all, l)
			}
		}
	}
	return all
}

func counts(t testing.TB, path string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, l := range lines(t, path) {
		n[l.ID]++
	}
	return n
}

func open(t testing.TB, config filesink.Config) *filesink.Sink {
	t.Helper()
	s := filesink.New(config)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Validate())
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	var path string
	series := func(t testing.TB, feature, subject string, match func(map[string]string) bool) (total int64) {
		for _, l := range lines(t, path) {
			if l.Feature == feature && l.Subject == subject && match(l.Dimensions) {
				total += l.Quantity
			}
		}
		return total
	}
	sinktest.Run(t, sinktest.Harness{
		New: func(t testing.TB) sink.Sink {
			path = filepath.Join(t.TempDir(), "usage.jsonl")
			return open(t, filesink.Config{Path: path, MaxSize: 2000})
		},
		Total: func(t testing.TB, feature, subject string) int64 {
			return series(t, feature, subject, func(map[string]string) bool { return true })
		},
		Series: func(t testing.TB, feature, subject string, dimensions map[string]string) int64 {
			return series(t, feature, subject, func(d map[string]string) bool { return maps.Equal(d, dimensions) })
		},
		Restart: func(t testing.TB, s sink.Sink) sink.Sink {
			require.NoError(t, s.(*filesink.Sink).Close())
			return open(t, filesink.Config{Path: path})
		},
		Unreachable: func(t testing.TB) sink.Sink {
			return filesink.New(filesink.Config{Path: filepath.Join(t.TempDir(), "gone", "usage.jsonl")})
		},
	})
}

func TestLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path})
	first := record(1)
	first.Dimensions = map[string]string{"tier": "gold", "region": "<eu>"}
	second := record(2)
	second.Kind, second.Attempt = sink.Last, 4
	second.Subject = "a\n\"b\""
	second.Start = noon.In(time.FixedZone("", 3600))
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{first, second}))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"id":"r-1","feature":"tax-report","subject":"cus_1","dimensions":{"region":"<eu>","tier":"gold"},`+
		`"kind":"sum","quantity":2,"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":1}`+"\n"+
		`{"id":"r-2","feature":"tax-report","subject":"a\n\"b\"","dimensions":{},`+
		`"kind":"last","quantity":3,"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":4}`+"\n", string(data))
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path, MaxSize: 500})
	for n := range 20 {
		require.NoError(t, s.Deliver(t.Context(), recordsOf(n, n+1)))
	}
	names := paths(t, path)
	require.Len(t, names, 10) // two lines a file
	for _, name := range names {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(500))
	}
	for n, l := range lines(t, path) { // names sort by age
		require.Equal(t, fmt.Sprintf("r-%d", n), l.ID)
	}
	// One call's records stay together, whatever the size.
	require.NoError(t, s.Deliver(t.Context(), recordsOf(20, 40)))
	require.Len(t, paths(t, path), 11)

	require.NoError(t, s.Close())
	again := open(t, filesink.Config{Path: path, MaxSize: 500})
	require.NoError(t, again.Deliver(t.Context(), recordsOf(0, 41)))
	for id, n := range counts(t, path) {
		require.Equal(t, 1, n, id)
	}
	require.Len(t, lines(t, path), 41)
}

// In a bubble time stands still: every rotation falls on the same instant, and
// the names must sort and differ all the same.
func TestRotationWithinOneInstant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "usage.jsonl")
		s := open(t, filesink.Config{Path: path, MaxSize: 1})
		require.NoError(t, os.WriteFile(path+".29991231T235959.999999999Z", nil, 0o600))
		for n := range 5 {
			require.NoError(t, s.Deliver(t.Context(), recordsOf(n, n+1)))
		}
		names, err := filepath.Glob(path + ".3*")
		require.NoError(t, err)
		require.Len(t, names, 4)
	})
}

// Deleting a file ends the memory of its IDs, in the running process at the
// next rotation; the others stay known.
func TestDeletedFilesAreForgotten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path, MaxSize: 1})
	for n := range 3 {
		require.NoError(t, s.Deliver(t.Context(), recordsOf(n, n+1)))
	}
	require.NoError(t, os.Remove(paths(t, path)[0])) // r-0
	require.NoError(t, s.Deliver(t.Context(), recordsOf(0, 3)))
	require.Equal(t, map[string]int{"r-1": 1, "r-2": 1}, counts(t, path))
	require.NoError(t, s.Deliver(t.Context(), recordsOf(3, 4))) // rotates
	require.NoError(t, s.Deliver(t.Context(), recordsOf(0, 3)))
	require.Equal(t, map[string]int{"r-0": 1, "r-1": 1, "r-2": 1, "r-3": 1}, counts(t, path))
}

// Somebody moves the file away under the sink, or cuts it off.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path})
	require.NoError(t, s.Deliver(t.Context(), recordsOf(0, 2)))
	require.NoError(t, os.Rename(path, path+".old"))
	require.NoError(t, s.Deliver(t.Context(), recordsOf(0, 3)))
	require.Equal(t, map[string]int{"r-2": 1}, counts(t, path))
	require.NoError(t, os.Truncate(path, 0))
	require.NoError(t, s.Deliver(t.Context(), recordsOf(2, 4)))
	require.Equal(t, map[string]int{"r-3": 1}, counts(t, path))
}

func TestValidate(t *testing.T) {
	t.Parallel()
	err := filesink.New(filesink.Config{MaxSize: -1, LockWait: -2}).Validate()
	for _, part := range []string{"Config.Path is empty", "Config.MaxSize is -1", "Config.LockWait is -2ns"} {
		require.ErrorContains(t, err, part)
	}
	dir := t.TempDir()
	at := func(name string) error {
		s := filesink.New(filesink.Config{Path: filepath.Join(dir, name)})
		defer s.Close()
		return s.Validate()
	}
	require.ErrorContains(t, at("gone/usage.jsonl"), "create it")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.ErrorContains(t, at("folder"), "not a regular file")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("buy milk\nand eggs"), 0o600))
	require.ErrorContains(t, at("notes.txt"), "something else than records")
	require.ErrorContains(t, at("notes.txt/usage.jsonl"), "is no directory")
	data, err := os.ReadFile(filepath.Join(dir, "notes.txt"))
	require.NoError(t, err)
	require.Equal(t, "buy milk\nand eggs", string(data))
}

func TestSymlinksAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	for _, name := range []string{"usage.jsonl", "usage.jsonl.lock", "usage.jsonl.20260301T120000.000000000Z"} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(target, link); err != nil {
			t.Skip("no symbolic links here: ", err)
		}
		s := filesink.New(filesink.Config{Path: filepath.Join(dir, "usage.jsonl")})
		require.Error(t, s.Validate(), name)
		require.ErrorIs(t, s.Deliver(t.Context(), recordsOf(0, 1)), sink.ErrNotApplied)
		require.NoError(t, s.Close())
		require.NoError(t, os.Remove(link))
	}
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files are not locked on this system")
	}
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	first := open(t, filesink.Config{Path: path})
	second := filesink.New(filesink.Config{Path: path, LockWait: filesink.NoWait})
	err := second.Validate()
	for _, advice := range []string{"in use by another process", "another sink of this one", "raise Config.LockWait", "split the bill", "two routes"} {
		require.ErrorContains(t, err, advice)
	}
	require.ErrorIs(t, second.Deliver(t.Context(), recordsOf(0, 1)), sink.ErrNotApplied)
	require.NoError(t, first.Close())
	require.NoError(t, second.Validate())
	require.NoError(t, second.Close())
}

func TestLockWait(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files are not locked on this system")
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "usage.jsonl")
		first := open(t, filesink.Config{Path: path})
		for wait, want := range map[time.Duration]time.Duration{0: 30 * time.Second, time.Minute: time.Minute, filesink.NoWait: 0} {
			started := time.Now()
			other := filesink.New(filesink.Config{Path: path, LockWait: wait})
			require.ErrorContains(t, other.Validate(), "in use by another process")
			require.InDelta(t, want, time.Since(started), float64(time.Second))
		}
		second := filesink.New(filesink.Config{Path: path}) // as in a rolling deploy
		time.AfterFunc(25*time.Second, func() { _ = first.Close() })
		require.NoError(t, second.Validate())
		require.NoError(t, second.Close())
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path})
	bad := recordsOf(0, 7)
	bad[0].ID = ""
	bad[1].ID = "Upper"
	bad[2].ID = strings.Repeat("x", 65)
	bad[3].Kind = 3
	bad[4].Subject = "\xff"
	bad[5].Dimensions = map[string]string{"region": "\xff"}
	bad[6].Subject = strings.Repeat("x", 1<<20)
	err := s.Deliver(t.Context(), append(bad, record(7)))
	batch, ok := errors.AsType[*sink.BatchError](err)
	require.True(t, ok)
	for _, err := range batch.Errs[:7] {
		require.ErrorIs(t, err, sink.ErrRejected)
	}
	require.NoError(t, batch.Errs[7])
	require.Equal(t, map[string]int{"r-7": 1}, counts(t, path))
}

func TestRepetitionsWithinOneCall(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path})
	require.NoError(t, s.Deliver(t.Context(), append(recordsOf(0, 3), recordsOf(1, 4)...)))
	require.Equal(t, map[string]int{"r-0": 1, "r-1": 1, "r-2": 1, "r-3": 1}, counts(t, path))
}

func TestClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := filesink.New(filesink.Config{Path: path})
	require.NoError(t, s.Deliver(t.Context(), recordsOf(0, 1))) // opens by itself
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Deliver(t.Context(), recordsOf(1, 2)), sink.ErrNotApplied)
	require.ErrorContains(t, s.Validate(), "closed")
	require.Len(t, lines(t, path), 1)
}

func TestEndedContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	s := open(t, filesink.Config{Path: path})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Deliver(ctx, recordsOf(0, 1))
	require.ErrorIs(t, err, sink.ErrNotApplied)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, lines(t, path))
}

func TestAddress(t *testing.T) {
	t.Parallel()
	want, err := filepath.Abs("usage.jsonl")
	require.NoError(t, err)
	require.Equal(t, want, filesink.New(filesink.Config{Path: "usage.jsonl"}).Address())
	require.Empty(t, filesink.New(filesink.Config{}).Address())
}
