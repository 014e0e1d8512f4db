package prepaid

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever stands in the file, only what was written as a whole is believed.
func FuzzFile(f *testing.F) {
	s := state{Feature: "f", Subject: "s", From: "b", Begun: -3, Drawn: 90, Used: 7, Open: &transfer{ID: "T", Units: 10, Before: 5, Mark: "m", At: 1}, Aside: []doubt{{"D", 3, lostDraw, 2}}}
	f.Add(line{State: &s}.encode())
	f.Add(append(line{Decision: &decision{Note: "n"}}.encode(), "torn"...))
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		whole := line{State: &s}.encode()
		require.NoError(t, os.WriteFile(filepath.Join(dir, fileName), append(append([]byte{}, data...), append([]byte("\n"), whole...)...), 0o600))
		b := file{dir: dir}
		_, _, err := b.open()
		require.NoError(t, err)
		require.Equal(t, &s, b.states[s.owner()], "the last one is right")
		if l, err := decodeLine(data); err == nil {
			again, err := decodeLine(l.encode())
			require.NoError(t, err)
			require.Equal(t, l, again)
		}
	})
}

// A directory that can't be read is said, not taken for an empty one.
func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, fileName), 0o700))
	_, err := Open(Config{Dir: dir})
	require.ErrorContains(t, err, "prepaid")
}
