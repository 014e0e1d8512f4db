package cache

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
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

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// inHome runs test in a bubble of fake time, as bubble does.
func inHome(t *testing.T, test func(h *home)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &home{T: t, server: &server{verdict: allow("cus_1")}, path: filepath.Join(dir, "state", "verdicts")}
		h.cfg = Config{Checker: h.server, File: h.path, Rate: 1e6, Logger: h.log.logger()}
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
