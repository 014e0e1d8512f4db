package cache

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

// home is a directory for caches that come one after the other.
type home struct {
	*testing.T
	server *server
	path   string
	log    journal
	cfg    Config
}

// journal is what was logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// inHome runs test in a bubble of fake time, as bubble does.
func inHome(t *testing.T, test func(h *home)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &home{T: t, server: &server{verdict: allow("cus_1")}, path: filepath.Join(dir, "state", "verdicts")}
		h.cfg = Config{Checker: h.server, File: h.path, Rate: 1e6, Logger: slog.New(slog.NewTextHandler(&h.log, nil))}
		test(h)
	})
}

// start starts the next cache; the one before is closed, or as dead.
func (h *home) start() world {
	h.Helper()
	c := New(h.cfg)
	require.NoError(h, c.Validate())
	return world{h.T, c, h.server}
}

func (h *home) stop(w world) {
	h.Helper()
	require.NoError(h, w.Close())
}

// kill ends a cache as the end of its process would: nothing more is written.
func (h *home) kill(w world) {
	w.file.mu.Lock()
	w.file.closed, w.file.due = true, time.Time{}
	w.file.mu.Unlock()
	h.stop(w)
}

func (h *home) file(suffix string) []byte {
	h.Helper()
	content, err := os.ReadFile(h.path + suffix)
	require.NoError(h, err)
	return content
}

// The whole of it: the license server dies, and comes back after Grace; in between
// the process is restarted twice, once without a chance to write.
func TestAnOutageAsLongAsGraceWithRestarts(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		for i := range 20 {
			h.server.set(allow(fmt.Sprint("cus_", i)), nil)
			w.answer(fmt.Sprint("k", i), license.Allowed)
		}
		last := time.Now()
		h.server.set(license.Verdict{}, errDown)
		for hour := 1; time.Since(last) < 24*time.Hour; hour++ {
			for i := range 20 {
				require.Equal(h, fmt.Sprint("cus_", i), w.allowed(fmt.Sprint("k", i)).Subject)
			}
			w.unknown("nobody")
			time.Sleep(10 * time.Minute)
			switch hour {
			case 20:
				h.stop(w)
				time.Sleep(time.Hour)
				w = h.start()
			case 60:
				h.kill(w)
				time.Sleep(time.Hour)
				w = h.start()
			}
		}
		h.server.slow(0)
		for i := range 20 {
			w.unknown(fmt.Sprint("k", i))
			k, err := w.Key(w.Context(), fmt.Sprint("cus_", i))
			require.NoError(h, err, "what was counted can still be billed")
			require.Equal(h, license.NewKey(fmt.Sprint("k", i)), k)
		}
		h.server.set(allow("cus_0"), nil)
		time.Sleep(longestPause)
		w.answer("k0", license.Allowed)
		h.stop(w)
		require.NotContains(h, h.log.String(), "File")
		require.Contains(h, h.log.String(), "the license server gave no answer", "grace hides it from everybody else")
	})
}

func TestWhatWasRestoredIsRefreshedAtFirstUse(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		v := allow("cus_1")
		v.Until = time.Now().Add(time.Hour).In(time.FixedZone("odd", 40_000*60))
		v.Quota = &license.Quota{Limit: 10, Used: 3, Start: time.Now(), End: v.Until}
		h.server.set(v, nil)
		w.answer("k", license.Allowed)
		h.stop(w)
		w = h.start()
		got := w.allowed("k")
		require.True(h, v.Until.Equal(got.Until))
		require.True(h, v.Quota.End.Equal(got.Quota.End))
		require.EqualValues(h, 3, got.Quota.Used)
		w.asked(2)
		w.allowed("k")
		time.Sleep(4 * time.Minute)
		w.allowed("k")
		w.asked(2)
		h.stop(w)
		time.Sleep(56 * time.Minute)
		h.server.set(license.Verdict{}, errDown)
		w = h.start()
		w.unknown("k") // Until has passed meanwhile
		h.stop(w)
	})
}

func TestNoGraceBelievesNothingThatWasRestored(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		h.cfg.Grace = NoGrace
		w := h.start()
		w.answer("k", license.Allowed)
		h.stop(w)
		w = h.start()
		h.server.set(deny(license.Blocked), nil)
		w.answer("k", license.Denied)
		k, err := w.Key(w.Context(), "cus_1")
		require.NoError(h, err)
		require.Equal(h, license.NewKey("k"), k)
		h.stop(w)
	})
}

func TestARevokedCustomerStaysDeniedOverARestart(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*home, world){
		"closed": (*home).stop,
		"killed": func(h *home, w world) { time.Sleep(soon); w.settle(); h.kill(w) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHome(t, func(h *home) {
				w := h.start()
				w.answer("k", license.Allowed)
				time.Sleep(time.Hour)
				h.server.set(deny(license.Blocked), nil)
				w.allowed("k") // in grace
				w.settle()
				w.answer("k", license.Denied)
				end(h, w)
				h.server.set(license.Verdict{}, errDown)
				w = h.start()
				require.Equal(h, license.Blocked, w.answer("k", license.Denied).Reason)
				w.asked(3) // it was asked first
				h.stop(w)
				h.server.set(allow("cus_1"), nil)
				w = h.start()
				w.answer("k", license.Allowed) // who has paid
				h.stop(w)
				h.server.set(license.Verdict{}, errDown)
				w = h.start()
				w.allowed("k")
				h.stop(w)
			})
		})
	}
}

func TestInvalidatedIsGoneOverARestart(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		w.answer("k", license.Allowed)
		time.Sleep(time.Hour)
		w.settle()
		w.Invalidate(license.NewKey("k"))
		time.Sleep(soon)
		w.settle()
		h.kill(w)
		h.server.set(license.Verdict{}, errDown)
		w = h.start()
		w.unknown("k")
		h.stop(w)
	})
}

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

func TestTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		future   time.Duration
		believed bool
	}{
		"a second": {time.Second, true}, "a minute": {time.Minute, true}, "an hour": {time.Hour, false}, "a year": {365 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHome(t, func(h *home) {
				w := h.start()
				w.answer("k", license.Allowed)
				h.stop(w)
				s, err := w.file.read()
				require.NoError(h, err)
				s.Wall += int64(test.future)
				s.Allowed[0].Verdict.Age = 23 * time.Hour
				w = h.start()
				w.InvalidateAll()
				h.server.set(license.Verdict{}, errDown)
				err = w.restore(s)
				if !test.believed {
					require.ErrorContains(h, err, "in the future: the clock was set back")
					w.unknown("k")
				} else {
					require.NoError(h, err)
					time.Sleep(time.Hour - 1)
					w.allowed("k")
					time.Sleep(1)
					w.unknown("k")
				}
				_, err = w.Key(w.Context(), "cus_1")
				require.NoError(h, err)
				h.stop(w)
			})
		})
	}
}

// The clock may have been right after all, or not: time that passed counts by both.
func TestDownTimeCountsAlsoForVerdictsFromTheFuture(t *testing.T) {
	t.Parallel()
	inHome(t, func(h *home) {
		w := h.start()
		w.answer("k", license.Allowed)
		h.stop(w)
		s, err := w.file.read()
		require.NoError(h, err)
		s.Wall -= int64(30 * time.Minute)
		s.Allowed[0].Verdict.Age = 23 * time.Hour
		s.Allowed[0].Verdict.At += int64(365 * 24 * time.Hour)
		w = h.start()
		w.InvalidateAll()
		h.server.set(license.Verdict{}, errDown)
		require.NoError(h, w.restore(s))
		time.Sleep(30*time.Minute - 1)
		w.allowed("k")
		time.Sleep(1)
		w.unknown("k")
		h.stop(w)
	})
}

func TestFilesAreForNobodyElse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
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
