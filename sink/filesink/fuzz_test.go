package filesink

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

const wholeLine = `{"id":"r-0","feature":"tax-report","subject":"cus_1","dimensions":{},"kind":"sum","quantity":1,` +
	`"start":"2026-03-01T12:00:00Z","end":"2026-03-01T12:01:00Z","attempt":1}`

func wholeLines(data []byte) (n int) {
	for text := range bytes.Lines(data) {
		if string(text) == wholeLine+"\n" {
			n++
		}
	}
	return n
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// FuzzOpen begins with a file of any bytes: the complete lines that are records
// stay, each ID is written once, and only the remains of a crash are cut off.
func FuzzOpen(f *testing.F) {
	const whole = wholeLine
	for _, seed := range []string{
		"", "\n", whole, whole + "\n", whole + "\n" + whole[:40], whole[:3], "{\"i\x00\x00", whole + "\n\x00\x00\x00",
		whole + "\r\n", "\n\n" + whole + "\n", "junk\n" + whole + "\njunk", `{"id":"r-0"}`, `{ "ID": "r-0" }` + "\n",
		whole[:60] + "\x00\x00\n" + whole + "\n", "[1,2]\n", "\xff\xfe\n", `{"id":"r-0","feature":"` + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		path := filepath.Join(t.TempDir(), "usage.jsonl")
		require.NoError(t, os.WriteFile(path, before, 0o600))
		s := New(Config{Path: path})
		s.os = newDisk(0) // which syncs nothing, and so is fast
		defer s.Close()
		if err := s.Validate(); err != nil {
			require.ErrorContains(t, err, "something else than records")
			require.Equal(t, string(before), read(t, path))
			require.NotContains(t, strings.Split(string(before), "\n"), wholeLine)
			return
		}
		had := written(t, path)
		for range 2 {
			require.NoError(t, s.Deliver(t.Context(), []sink.Record{testRecord(0), testRecord(1)}))
		}
		requireKept(t, path, before)
		n := written(t, path)
		require.LessOrEqual(t, len(n), len(had)+2)
		for _, id := range []string{"r-0", "r-1"} {
			if !bytes.Contains(before, []byte(id)) {
				require.Equal(t, 1, n[id])
			}
		}
		if there := wholeLines(before); there > 0 {
			require.Equal(t, there, wholeLines([]byte(read(t, path))))
		}
	})
}

// requireKept wants the complete lines of before at the start of the file, and
// what followed them there too, unless it looks like the remains of a record.
func requireKept(t *testing.T, path string, before []byte) {
	t.Helper()
	after := read(t, path)
	end := bytes.LastIndexByte(before, '\n') + 1
	require.True(t, strings.HasPrefix(after, string(before[:end])))
	rest := string(before[end:])
	if len(rest) > 0 && rest[0] != 0 && rest[0] != '{' {
		require.True(t, strings.HasPrefix(after[end:], rest+"\n"))
	}
}
