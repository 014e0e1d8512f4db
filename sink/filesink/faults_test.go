package filesink

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// failing opens a sink that holds record 0, and whose disk then fails the named
// operations once each.
func failing(t *testing.T, ops ...string) (*Sink, *disk) {
	t.Helper()
	d := newDisk(1)
	s := New(Config{Path: filepath.Join(t.TempDir(), "usage.jsonl")})
	s.os = d
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Deliver(t.Context(), []sink.Record{testRecord(0)}))
	left := map[string]int{}
	for _, op := range ops {
		left[op]++
	}
	d.fail = func(op string) bool {
		left[op]--
		return left[op] >= 0
	}
	return s, d
}

// What each failure answers, what it leaves, and that the next call is well.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ops        []string
		notApplied bool
		left       int // of records 1 and 2, at most
	}{
		"a write is cut short":                    {[]string{"write"}, true, 0},
		"it can't be taken back":                  {[]string{"write", "truncate"}, false, 2},
		"taking it back is not known to be saved": {[]string{"write", "sync"}, false, 2},
		"a sync fails":                            {[]string{"sync"}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, d := failing(t, c.ops...)
			before, err := os.ReadFile(s.path)
			require.NoError(t, err)
			batch := []sink.Record{testRecord(0), testRecord(1), testRecord(2)}
			each, ok := errors.AsType[*sink.BatchError](s.Deliver(t.Context(), batch))
			require.True(t, ok)
			require.NoError(t, each.Errs[0]) // it was there before
			for _, err := range each.Errs[1:] {
				require.ErrorIs(t, err, errDisk)
				require.NotErrorIs(t, err, sink.ErrRejected)
				require.Equal(t, c.notApplied, errors.Is(err, sink.ErrNotApplied), err)
			}
			for _, op := range c.ops {
				require.Equal(t, 1, d.fired[op], op)
			}
			after, err := os.ReadFile(s.path)
			require.NoError(t, err)
			if c.notApplied {
				require.Equal(t, string(before), string(after))
			}
			require.LessOrEqual(t, len(written(t, s.path)), 1+c.left)

			for range 2 {
				require.NoError(t, s.Deliver(t.Context(), batch))
				require.Equal(t, map[string]int{"r-0": 1, "r-1": 1, "r-2": 1}, written(t, s.path))
			}
		})
	}
}

// A rotation that fails has written nothing, wherever it stopped.
func TestRotationFaults(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"rename", "open", "syncDir"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			s, d := failing(t, op)
			s.config.MaxSize = 1
			batch := []sink.Record{testRecord(1)}
			require.ErrorIs(t, s.Deliver(t.Context(), batch), sink.ErrNotApplied)
			require.Equal(t, 1, d.fired[op])
			require.Equal(t, map[string]int{"r-0": 1}, written(t, s.path))
			require.NoError(t, s.Deliver(t.Context(), batch))
			require.Equal(t, map[string]int{"r-0": 1, "r-1": 1}, written(t, s.path))
		})
	}
}

// A file that can't be synced when it is opened is not opened.
func TestOpenFault(t *testing.T) {
	t.Parallel()
	s, d := failing(t)
	path := s.path
	require.NoError(t, s.Close())
	s = New(Config{Path: path})
	s.os = d
	syncs := 1
	d.fail = func(op string) bool {
		if op == "sync" {
			syncs--
		}
		return op == "sync" && syncs >= 0
	}
	require.ErrorIs(t, s.Validate(), errDisk)
	require.NoError(t, s.Validate())
	require.NoError(t, s.Close())
}
