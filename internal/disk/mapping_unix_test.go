//go:build linux || darwin

package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func mapped(t *testing.T, n int64) (*os.File, *Mapping) {
	t.Helper()
	f := create(t, t.TempDir(), "mapped")
	require.NoError(t, Reserve(f, 0, n))
	m, err := Map(f, 0, n)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Unmap()) })
	return f, m
}

func TestMapIsTheFile(t *testing.T) {
	t.Parallel()
	page := int64(os.Getpagesize())
	f, _ := mapped(t, 4*page)
	m, err := Map(f, page, 2*page)
	require.NoError(t, err)
	require.Len(t, m.Bytes(), int(2*page))
	require.NoError(t, f.Close(), "a mapping outlives its file")

	copy(m.Bytes()[10:], "by memory")
	content, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, "by memory", string(content[page+10:page+19]))

	again, err := OpenFile(f.Name(), os.O_RDWR)
	require.NoError(t, err)
	defer again.Close()
	_, err = again.WriteAt([]byte("by system call"), page)
	require.NoError(t, err)
	require.Equal(t, "by system call", string(m.Bytes()[:14]))

	require.NoError(t, m.Sync())
	require.NoError(t, m.Unmap())
	require.Nil(t, m.Bytes())
	require.NoError(t, m.Unmap(), "idempotent")
	require.NoError(t, m.Sync())
}

func TestMapRefuses(t *testing.T) {
	t.Parallel()
	page := int64(os.Getpagesize())
	f, _ := mapped(t, 2*page)
	for _, c := range []struct {
		off, n int64
		says   string
	}{
		{-page, page, "bad range"},
		{0, 0, "bad range"},
		{1, page, "page size"},
		{0, 2*page + 1, "passes the file's end"},
		{4 * page, page, "passes the file's end"},
	} {
		m, err := Map(f, c.off, c.n)
		require.Nil(t, m)
		require.ErrorContains(t, err, c.says)
		require.ErrorContains(t, err, f.Name())
	}
	reader, err := os.Open(filepath.Clean(f.Name()))
	require.NoError(t, err)
	defer reader.Close()
	_, err = Map(reader, 0, page)
	require.ErrorIs(t, err, os.ErrPermission)
	_, err = Map(closed(t), 0, page)
	require.ErrorIs(t, err, os.ErrClosed)
}

func closed(t *testing.T) *os.File {
	f := create(t, t.TempDir(), "closed")
	require.NoError(t, f.Close())
	return f
}
