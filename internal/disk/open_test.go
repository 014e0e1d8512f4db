package disk

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenFileCreatesPrivateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	f, err := OpenFile(path, os.O_RDWR|os.O_CREATE)
	require.NoError(t, err)
	_, err = f.WriteString("seven")
	require.NoError(t, err)
	require.NoError(t, f.Close())

	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())

	f, err = OpenFile(path, os.O_RDONLY)
	require.NoError(t, err)
	defer f.Close()
	content := make([]byte, 5)
	_, err = f.ReadAt(content, 0)
	require.NoError(t, err)
	require.Equal(t, "seven", string(content))
}

func TestOpenFileRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	require.NoError(t, os.WriteFile(target, []byte("keep"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(target, link))
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(dir, "unborn"), dangling))

	for name, c := range map[string]struct {
		path, says string
		flag       int
	}{
		"symbolic link":  {link, "symbolic link", os.O_RDWR | os.O_CREATE | os.O_TRUNC},
		"dangling link":  {dangling, "symbolic link", os.O_RDWR | os.O_CREATE},
		"directory":      {dir, "not a regular file", os.O_RDONLY},
		"missing":        {filepath.Join(dir, "missing"), "missing", os.O_RDWR},
		"exists already": {target, "exists", os.O_RDWR | os.O_CREATE | os.O_EXCL},
	} {
		f, err := OpenFile(c.path, c.flag)
		require.Nil(t, f, name)
		require.ErrorContains(t, err, c.says, name)
		require.ErrorContains(t, err, c.path, name)
	}
	content, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "keep", string(content), "the link's target is untouched")
	require.NoFileExists(t, filepath.Join(dir, "unborn"))
}

func TestMakeDir(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "c")
	require.NoError(t, MakeDir(dir))
	for _, d := range []string{dir, filepath.Dir(dir), filepath.Join(root, "a")} {
		info, err := os.Lstat(d)
		require.NoError(t, err)
		require.Equal(t, fs.ModeDir|0o700, info.Mode(), d)
	}
	require.NoError(t, os.Chmod(dir, 0o750))
	require.NoError(t, MakeDir(dir+"/"))
	info, err := os.Lstat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|0o750, info.Mode(), "an existing mode is kept")
}

func TestMakeDirRefuses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	file := filepath.Join(root, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	link := filepath.Join(root, "link")
	require.NoError(t, os.Symlink(root, link))
	dangling := filepath.Join(root, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(root, "unborn"), dangling))

	require.EqualError(t, MakeDir(""), "no directory named")
	for path, says := range map[string]string{
		file:                         "is not a directory",
		filepath.Join(file, "sub"):   "not a directory",
		link:                         "symbolic link",
		link + "/":                   "symbolic link",
		dangling:                     "symbolic link",
		filepath.Join(dangling, "x"): "cannot be created",
	} {
		err := MakeDir(path)
		require.ErrorContains(t, err, says, path)
		require.ErrorContains(t, err, filepath.Clean(path))
	}
	require.NoDirExists(t, filepath.Join(root, "unborn"))
	require.NoError(t, MakeDir(filepath.Join(link, "below")), "only the last element must not be a link")
}
