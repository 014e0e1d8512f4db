package disk

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := create(t, dir, "original")
	_, err := f.WriteString("content")
	require.NoError(t, err)
	born, err := IdentityOf(f)
	require.NoError(t, err)
	require.NotZero(t, born.Inode)

	moved := filepath.Join(dir, "moved")
	require.NoError(t, os.Rename(f.Name(), moved))
	again, err := OpenFile(moved, os.O_RDWR)
	require.NoError(t, err)
	defer again.Close()
	_, err = again.WriteString("changed")
	require.NoError(t, err)
	same, err := IdentityOf(again)
	require.NoError(t, err)
	require.Equal(t, born, same, "a rename and a write keep it")

	twin := create(t, dir, "copy")
	_, err = again.Seek(0, io.SeekStart)
	require.NoError(t, err)
	_, err = io.Copy(twin, again)
	require.NoError(t, err)
	copied, err := IdentityOf(twin)
	require.NoError(t, err)
	require.NotEqual(t, born, copied)

	require.NoError(t, twin.Close())
	_, err = IdentityOf(twin)
	require.ErrorIs(t, err, os.ErrClosed)
}
