package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/stretchr/testify/require"
)

var errDown = errors.New("license server is down")

func ask(key string) license.Query {
	return license.Query{Key: license.NewKey(key), Feature: "api"}
}

func allow(subject string) license.Verdict {
	return license.Verdict{Status: license.Allowed, Subject: subject}
}

func deny(why license.Reason) license.Verdict {
	return license.Verdict{Status: license.Denied, Reason: why}
}

// server is a license server whose answer can be changed.
type server struct {
	mu      sync.Mutex
	calls   int
	flying  map[license.Query]int
	overlap bool
	verdict license.Verdict
	err     error
	delay   time.Duration
}

func (s *server) Check(ctx context.Context, q license.Query) (license.Verdict, error) {
	s.mu.Lock()
	s.calls++
	if s.flying == nil {
		s.flying = map[license.Query]int{}
	}
	s.flying[q]++
	s.overlap = s.overlap || s.flying[q] > 1
	verdict, err, delay := s.verdict, s.err, s.delay
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flying[q]--; s.flying[q] == 0 {
			delete(s.flying, q)
		}
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return license.Verdict{}, ctx.Err()
		}
	}
	return verdict, err
}

func (s *server) set(v license.Verdict, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict, s.err = v, err
}

func (s *server) slow(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = delay
}

func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// world is a cache in front of a server.
type world struct {
	*testing.T
	*Cache
	server *server
}

// bubble runs test in a bubble of fake time, where the server allows "cus_1".
func bubble(t *testing.T, cfg Config, test func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{verdict: allow("cus_1")}
		if cfg.Checker == nil {
			cfg.Checker = s
		}
		if cfg.Logger == nil {
			cfg.Logger = slog.New(slog.DiscardHandler)
		}
		c := New(cfg)
		require.NoError(t, c.Validate())
		test(world{t, c, s})
		require.NoError(t, c.Close())
		require.False(t, s.overlap, "the same was asked twice at a time")
	})
}

// allowed checks that key is let through at once.
func (w world) allowed(key string) license.Verdict {
	w.Helper()
	before := time.Now()
	v := w.answer(key, license.Allowed)
	require.Zero(w, time.Since(before), "had to wait")
	return v
}

func (w world) answer(key string, want license.Status) license.Verdict {
	w.Helper()
	v, err := w.Check(w.Context(), ask(key))
	require.NoError(w, err)
	require.Equal(w, want, v.Status)
	return v
}

func (w world) unknown(key string) error {
	w.Helper()
	v, err := w.Check(w.Context(), ask(key))
	require.Error(w, err)
	require.Zero(w, v, "a verdict beside an error")
	return err
}

// settle waits for what runs in the background and takes no time.
func (w world) settle() { synctest.Wait() }

func (w world) asked(n int) {
	w.Helper()
	w.settle()
	require.Equal(w, n, w.server.asked(), "calls to the server")
}
