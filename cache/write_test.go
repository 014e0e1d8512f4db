package cache

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// A count may be accepted a moment after its customer was first seen, and billed
// after the process was killed.
func TestNewCustomersAreWrittenSoonAndOthersLater(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		var writes atomic.Int32
		w.file.writing.Lock()
		encode := w.file.encode
		w.file.encode = func() ([]byte, error) { writes.Add(1); return encode() }
		w.file.writing.Unlock()
		for i := range 100 { // all in one go
			h.server.set(allow(fmt.Sprint("cus_", i)), nil)
			w.answer(fmt.Sprint("k", i), license.Allowed)
		}
		time.Sleep(soon)
		w.settle()
		require.EqualValues(h, 1, writes.Load())
		time.Sleep(time.Hour)
		h.server.set(allow("cus_7"), nil)
		w.allowed("k7") // no more than a refresh
		w.settle()
		time.Sleep(later - 1)
		w.settle()
		require.EqualValues(h, 1, writes.Load())
		time.Sleep(1)
		w.settle()
		require.EqualValues(h, 2, writes.Load())
		time.Sleep(time.Hour)
		for i := range 1000 {
			h.server.set(deny(license.NotFound), nil)
			w.answer(fmt.Sprint("bad", i), license.Denied)
		}
		time.Sleep(time.Hour)
		w.settle()
		require.EqualValues(h, 2, writes.Load(), "strangers are nothing to write about")
		w.InvalidateSubject("cus_0") // writes
		h.stop(w)
		w = h.start()
		require.Zero(h, w.Cache.denied.Len())
		_, err := w.Key(w.Context(), "cus_99")
		require.NoError(h, err)
		h.stop(w)
	})
}

func TestNoChangePutsOffAWrite(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		for i := range 4 {
			h.server.set(allow(fmt.Sprint("cus_", i)), nil)
			w.answer(fmt.Sprint("k", i), license.Allowed)
			w.answer(fmt.Sprint("k", i, " of the same"), license.Allowed)
			time.Sleep(soon / 4)
			w.settle()
		}
		require.FileExists(h, h.path)
		h.stop(w)
	})
}

func TestFilesAreForNobodyElse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes on this system")
	}
	inHome(t, func(h *home) {
		require.NoError(h, os.MkdirAll(filepath.Dir(h.path), 0o700))
		require.NoError(h, os.WriteFile(h.path+".tmp", nil, 0o666)) // of a process that died
		w := h.start()
		w.answer("k", license.Allowed)
		h.stop(w)
		entries, err := os.ReadDir(filepath.Dir(h.path))
		require.NoError(h, err)
		var names []string
		for _, e := range entries {
			info, err := e.Info()
			require.NoError(h, err)
			require.Equal(h, os.FileMode(0o600), info.Mode(), e.Name())
			names = append(names, e.Name())
		}
		require.Equal(h, []string{"verdicts", "verdicts.key", "verdicts.lock"}, names)
	})
}

// Whoever has opened the file goes on reading what it was, and so does the next
// process if this one dies in the middle.
func TestAWriteLeavesTheOldFileAsItWas(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("an open file can't be replaced on this system")
	}
	inHome(t, func(h *home) {
		w := h.start()
		w.answer("k", license.Allowed)
		w.file.flush()
		before := h.file("")
		old, err := os.Open(h.path)
		require.NoError(h, err)
		defer old.Close()
		w.InvalidateAll()
		w.file.flush()
		still, err := io.ReadAll(old)
		require.NoError(h, err)
		require.True(h, bytes.Equal(before, still))
		require.NotEqual(h, before, h.file(""))
		h.stop(w)
	})
}

func TestSecret(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		h.cfg.Secret = []byte(strings.Repeat("a", minSecret))
		w := h.start()
		h.cfg.Secret[0] = 'b' // copied
		w.answer("k", license.Allowed)
		h.stop(w)
		require.NoFileExists(h, h.path+".key")
		h.cfg.Secret = []byte(strings.Repeat("a", minSecret))
		w = h.start()
		w.allowed("k")
		h.stop(w)
		require.Empty(h, h.log.String())
		good := h.file("")

		h.cfg.Secret = []byte(strings.Repeat("c", minSecret))
		h.server.set(allow("cus_2"), nil)
		w = h.start()
		_, err := w.Key(w.Context(), "cus_1")
		require.ErrorIs(h, err, ErrNoKey)
		require.ErrorIs(h, w.Health(), errUnreadable)
		require.ErrorContains(h, w.Health(), "; the next snapshot puts it aside as "+h.path+".unreadable: if Config.Secret has changed, stop, undo the change, and rename that file to "+
			h.path+"; until then customers are asked about anew, and usage of those who don't come again waits for their key")
		require.Contains(h, h.log.String(), "was written under another secret")
		w.answer("k", license.Allowed)
		h.stop(w)
		require.NoError(h, w.Health(), "another took its place")
		require.Equal(h, good, h.file(".unreadable"), "for whoever finds the secret")
	})
}

func TestTwoProcessesShareAFile(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		old := h.start()
		h.server.set(allow("cus_old"), nil)
		old.answer("k-old", license.Allowed)
		young := h.start()
		h.server.set(allow("cus_young"), nil)
		young.answer("k-young", license.Allowed)
		h.server.set(allow("cus_both"), nil)
		old.answer("k-1", license.Allowed)
		young.answer("k-2", license.Allowed)
		h.stop(old)
		h.stop(young)
		w := h.start()
		for _, who := range []string{"old", "young"} {
			k, err := w.Key(w.Context(), "cus_"+who)
			require.NoError(h, err, who)
			require.Equal(h, license.NewKey("k-"+who), k)
		}
		w.hasKey("cus_both", "k-2")
		h.stop(w)
	})
}

func TestADiskInTroubleIsTold(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		dir := filepath.Dir(h.path)
		require.NoError(h, os.RemoveAll(dir))
		w.answer("k", license.Allowed)
		time.Sleep(10 * time.Minute)
		w.settle()
		require.ErrorContains(h, w.Health(), "cache: verdicts are not on disk: ")
		require.Equal(h, 1, strings.Count(h.log.String(), "\n"), "told once")
		require.NoError(h, os.Mkdir(dir, 0o700))
		time.Sleep(later)
		w.settle()
		require.NoError(h, w.Health())
		require.Contains(h, h.log.String(), "is written again")
		require.NoError(h, os.RemoveAll(dir))
		w.InvalidateAll()
		require.ErrorContains(h, w.Close(), "cache: verdicts are not on disk: ")
	})
}

func TestFilesThatCanNotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ok := answers(allow("cus_1"), nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tls.key"), []byte("-----BEGIN PRIVATE KEY-----"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "short.key"), []byte(keyMagic+"abcd\n"), 0o600))
	for name, says := range map[string]string{
		"plain/verdicts": "is not a directory",
		"tls":            "tls.key is no key of a cache: put back",
		"short":          "short.key is no key of a cache: put back",
	} {
		c := New(Config{Checker: ok, File: filepath.Join(dir, name)})
		require.ErrorContains(t, c.Validate(), "cache: Config.File: ", name)
		require.ErrorContains(t, c.Validate(), says)
		_, err := c.Check(t.Context(), ask("k"))
		require.Error(t, err)
		c.InvalidateAll()
		require.NoError(t, c.Close())
	}
	content, err := os.ReadFile(filepath.Join(dir, "tls.key"))
	require.NoError(t, err)
	require.Equal(t, "-----BEGIN PRIVATE KEY-----", string(content))
}
