package filesink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func encoded(t testing.TB, n int) string {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, encode(&buf, testRecord(n)))
	return buf.String()
}

func TestScan(t *testing.T) {
	t.Parallel()
	a, b := encoded(t, 0), encoded(t, 1)
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		text    string
		found   int
		end     int
		tail    tail
		foreign bool
	}{
		"empty":                    {"", 0, 0, whole, false},
		"two lines":                {a + b, 2, len(a + b), whole, false},
		"torn":                     {a + b[:50], 1, len(a), torn, false},
		"torn at once":             {a[:2], 0, 0, torn, false},
		"newline missing":          {a + b[:len(b)-1], 2, len(a), unended, false},
		"zeros":                    {a + "\x00\x00", 1, len(a), torn, false},
		"torn into zeros":          {a + b[:3] + "\x00\x00", 1, len(a), torn, false},
		"only zeros":               {"\x00\x00\x00", 0, 0, torn, false},
		"zeros in between":         {a[:50] + "\x00\x00\n" + b, 1, 53 + len(b), whole, false},
		"half a line":              {a[:50] + "\n" + b, 1, 51 + len(b), whole, false},
		"foreign":                  {"milk\neggs", 0, 5, unended, true},
		"records after foreign":    {"milk\n" + a, 1, 5 + len(a), whole, false},
		"foreign after records":    {a + "milk", 1, len(a), unended, false},
		"a long line":              {a + long + long + "\n" + b, 2, len(a+b) + 2*maxLine + 1, whole, false},
		"a long line, ends as one": {a + long + b, 1, len(a+b) + maxLine, whole, false},
		"a long torn line":         {a + b[:50] + long, 1, len(a), torn, false},
		"a long foreign end":       {a + long + b[:50], 1, len(a), unended, false},
		"as long as can be":        {a[:30] + long[:maxLine-31] + "\n" + b, 1, maxLine + len(b), whole, false},
		"spaces by hand":           {`{ "subject": "x", "id": "r-0" }` + "\n", 1, 32, whole, false},
		"no ID":                    {`{"feature":"x"}` + "\n", 0, 16, whole, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := 0
			got, err := scan(strings.NewReader(c.text), func(id) { found++ })
			require.NoError(t, err)
			require.Equal(t, contents{int64(c.end), c.tail, c.foreign}, got)
			require.Equal(t, c.found, found)
		})
	}
	_, err := scan(iotest.ErrReader(errDisk), func(id) {})
	require.ErrorIs(t, err, errDisk)
}

// FuzzScan compares with the obvious way, which needs the file in memory.
func FuzzScan(f *testing.F) {
	f.Add([]byte(encoded(f, 0)+encoded(f, 1)), 0, 0)
	f.Add([]byte("a\nb"), 1, maxLine)
	f.Add([]byte(`{"id":"x","feature":"`+"\n\x00"), 5, maxLine+1)
	f.Fuzz(func(t *testing.T, data []byte, at, width int) {
		if width < 0 || width > 3*maxLine || at < 0 || at > len(data) {
			return
		}
		data = bytes.Join([][]byte{data[:at], data[at:]}, bytes.Repeat([]byte("y"), width))
		var want []id
		end := bytes.LastIndexByte(data, '\n') + 1
		for text := range bytes.Lines(data) {
			if i, ok := decode(bytes.TrimSuffix(text, []byte("\n"))); ok && len(text) <= maxLine {
				want = append(want, i)
				require.True(t, json.Valid(text))
			}
		}
		var got []id
		c, err := scan(iotest.HalfReader(bytes.NewReader(data)), func(i id) { got = append(got, i) })
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.EqualValues(t, end, c.end)
		require.Equal(t, end == len(data), c.tail == whole)
		require.False(t, c.foreign && len(want) > 0)
	})
}

func TestIndexForgets(t *testing.T) {
	t.Parallel()
	x := newIndex()
	for _, name := range []string{"old", "new", ""} {
		x.begin(name)
		x.add(idOf([]byte(name)))
	}
	x.forget(func(name string) bool { return name == "old" })
	require.False(t, x.has(idOf([]byte("old"))))
	require.True(t, x.has(idOf([]byte("new"))))
	require.True(t, x.has(idOf(nil)))
	x.renamed("newest")
	x.forget(func(name string) bool { return name == "newest" })
	require.False(t, x.has(idOf(nil)))
	require.True(t, x.has(idOf([]byte("new"))))
}

// A start reads everything, so it must read fast: this would take minutes if it
// were quadratic, or synced more than once.
func TestOpenMany(t *testing.T) {
	t.Parallel()
	n := 200_000
	if testing.Short() {
		n = 50_000
	}
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	line := []byte(encoded(t, 0))
	for part := range 4 {
		name := path
		if part > 0 {
			name += fmt.Sprintf(".2026030%dT120000.000000000Z", part)
		}
		var buf bytes.Buffer
		for i := range n / 4 {
			buf.WriteString(`{"id":"` + fmt.Sprintf("r-%d-%d", part, i))
			buf.Write(line[len(`{"id":"r-0`):])
		}
		require.NoError(t, os.WriteFile(name, buf.Bytes(), 0o600))
	}
	s := New(Config{Path: path})
	started := time.Now()
	require.NoError(t, s.Validate())
	t.Logf("%d records in %v", n, time.Since(started))
	require.Len(t, s.ids.ids, n)
	require.NoError(t, s.Close())
}

func BenchmarkOpen(b *testing.B) {
	var buf bytes.Buffer
	for n := range 10_000 {
		require.NoError(b, encode(&buf, testRecord(n)))
	}
	b.SetBytes(int64(buf.Len()))
	b.ReportAllocs()
	for b.Loop() {
		x := newIndex()
		x.begin("")
		if _, err := scan(bytes.NewReader(buf.Bytes()), x.add); err != nil {
			b.Fatal(err)
		}
	}
}
