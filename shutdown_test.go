package meter

import (
	"context"
	"errors"
	"log/slog"
	"math"
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
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// closable counts how often it was closed.
type closable struct {
	*memsink.Sink
	license.CheckerFunc
	closed atomic.Int32
	hang   chan struct{}
	err    error
}

func (c *closable) Close() error {
	c.closed.Add(1)
	if c.hang != nil {
		<-c.hang
	}
	return c.err
}

func TestShutdownDeliversAndCloses(t *testing.T) {
	t.Parallel()
	biller, checker := &closable{Sink: memsink.New()}, &closable{}
	m := open(t, func(c *Config) {
		c.Sinks = []Route{{Name: "r", Sink: biller}}
		c.Checker = checker
	})
	f := m.Feature("f")
	require.NoError(t, f.Add(t.Context(), "s", 3))
	counter := f.Counter("s")
	require.NoError(t, m.Shutdown(t.Context()))
	require.EqualValues(t, 3, biller.Total("f", "s"))
	require.EqualValues(t, 1, biller.closed.Load())
	require.EqualValues(t, 1, checker.closed.Load())

	require.NoError(t, m.Shutdown(t.Context()), "idempotent")
	require.EqualValues(t, 1, biller.closed.Load())
	require.NoError(t, m.Books().Check(), "books can still be read")
	for name, err := range map[string]error{
		"Add":         f.Add(t.Context(), "s", 1),
		"Set":         m.Feature("peak", Kind(sink.Max)).Set(t.Context(), "s", 1),
		"Counter":     counter.Add(t.Context(), 1),
		"new Counter": f.Counter("t").Add(t.Context(), 1),
		"Do":          Do(as("s"), f, func(context.Context) error { return nil }),
		"Flush":       m.Flush(t.Context()),
		"Prepare":     m.Prepare(t.Context()),
		"Health":      m.Health(),
		"Settle":      m.Settle(t.Context(), "r", "x", sink.Voided, ""),
	} {
		require.ErrorIs(t, err, ErrClosed, name)
	}
}

func TestShutdownWithAnEndedContext(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"in memory": InMemory, "directory": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			biller := &closable{Sink: memsink.New()}
			m := open(t, func(c *Config) { c.Dir, c.Sinks = dir, []Route{{Name: "r", Sink: biller}} })
			require.NoError(t, m.Feature("f").Add(t.Context(), "s", 3))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			left, ok := errors.AsType[*ShutdownError](m.Shutdown(ctx))
			require.True(t, ok)
			require.EqualValues(t, 1, left.Pending)
			require.Equal(t, dir != InMemory, left.Durable)
			require.ErrorIs(t, left, context.Canceled)
			require.EqualValues(t, 1, biller.closed.Load())
			require.Empty(t, biller.Records())
		})
	}
}

func TestShutdownReturnsByItsDeadline(t *testing.T) {
	t.Parallel()
	for name, biller := range map[string]func(release chan struct{}) sink.Sink{
		"Deliver hangs": func(release chan struct{}) sink.Sink {
			return sink.Func(func(context.Context, []sink.Record) error { <-release; return nil })
		},
		"Close hangs": func(release chan struct{}) sink.Sink { return &closable{Sink: memsink.New(), hang: release} },
		"both hang":   func(release chan struct{}) sink.Sink { return hangs{release} },
	} {
		dir := t.TempDir()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				m := open(t, func(c *Config) { c.Dir, c.Sinks = dir, []Route{{Name: "r", Sink: biller(release)}} })
				require.NoError(t, m.Feature("f").Add(t.Context(), "s", 3))
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				began := time.Now()
				err := m.Shutdown(ctx)
				require.LessOrEqual(t, time.Since(began), 25*time.Second+closeGrace)
				left, ok := errors.AsType[*ShutdownError](err)
				require.True(t, ok, "got %v", err)
				require.True(t, left.Durable)
				require.LessOrEqual(t, strings.Count(err.Error(), "deadline exceeded"), 1, "%v", err)
				if name == "Close hangs" {
					require.Zero(t, left.Pending)
					require.ErrorContains(t, err, "not closed in time")
				}
				again, err := Open(Config{Dir: dir, LockWait: NoWait})
				require.NoError(t, err, "unlocked")
				require.NoError(t, again.Shutdown(t.Context()))
			})
		})
	}
}

type hangs struct{ release chan struct{} }

func (h hangs) Deliver(context.Context, []sink.Record) error { <-h.release; return nil }
func (h hangs) Close() error                                 { <-h.release; return nil }

func TestShutdownTellsWhatCloseSaid(t *testing.T) {
	t.Parallel()
	failed := errors.New("disk full")
	m := open(t, func(c *Config) { c.Checker = &closable{err: failed} })
	err := m.Shutdown(t.Context())
	require.ErrorIs(t, err, failed)
	require.EqualError(t, err, "meter: shutdown: disk full")
}

func TestShutdownSurvivesWhatCloseReturns(t *testing.T) {
	t.Parallel()
	var slip *pathError
	m := open(t, func(c *Config) { c.Checker = &closable{err: slip} })
	_, ok := errors.AsType[*ShutdownError](m.Shutdown(t.Context()))
	require.True(t, ok)
}

func TestConcurrentShutdowns(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	entered := make(chan struct{})
	m := open(t, func(c *Config) {
		c.Sinks = []Route{{Name: "r", Sink: sink.Func(func(context.Context, []sink.Record) error {
			close(entered)
			<-release
			return nil
		})}}
	})
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 3))
	var ended atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := m.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			ended.Add(1)
		})
	}
	<-entered
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, m.Shutdown(impatient), context.Canceled, "a later caller's own context ends its wait")
	require.Zero(t, ended.Load(), "the others wait for the same end")
	close(release)
	all.Wait()
	require.NoError(t, m.Shutdown(impatient), "an end that is there beats a context that has ended")
}

// What is counted while Shutdown delivers goes out with the rest, unless it never
// ends.
func TestShutdownGoesBackForLateCounts(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]int64{"none": 0, "one": 1, "a few": 3, "without end": math.MaxInt64} {
		for where, dir := range map[string]string{"memory": InMemory, "directory": t.TempDir()} {
			t.Run(name+", "+where, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					biller, counted := memsink.New(), int64(1)
					var f *Feature
					m := open(t, func(c *Config) {
						c.Dir, c.Window = dir, OnFlush
						c.Sinks = []Route{{Name: "r", Sink: sink.Func(func(ctx context.Context, rs []sink.Record) error {
							if counted <= late {
								counted++
								if err := f.Add(ctx, "s", 1); err != nil {
									t.Error(err)
								}
							}
							return biller.Deliver(ctx, rs)
						})}}
					})
					f = m.Feature("f")
					require.NoError(t, f.Add(t.Context(), "s", 1))
					ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
					defer cancel()
					err := m.Shutdown(ctx)
					require.NoError(t, m.Books().Check())
					if late < shutdownPasses {
						require.NoError(t, err)
						require.Equal(t, counted, biller.Total("f", "s"))
						return
					}
					left, ok := errors.AsType[*ShutdownError](err)
					require.True(t, ok, "got %v", err)
					require.EqualValues(t, 1, left.Pending)
					require.Equal(t, dir != InMemory, left.Durable)
					require.ErrorContains(t, err, "1 record not delivered")
					require.ErrorContains(t, err, "counted while shutting down: stop what counts first")
					require.EqualValues(t, shutdownPasses, biller.Total("f", "s"))
					require.EqualValues(t, shutdownPasses+1, counted)
				})
			})
		}
	}
}

// Open files outlive their names, so nothing else would notice.
func TestShutdownFindsItsDirectoryGone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("an open file can't be removed on this system")
	}
	for name, lose := range map[string]func(t *testing.T, dir string){
		"deleted": func(_ *testing.T, dir string) {
			for os.RemoveAll(dir) != nil { // the meter has just made a file in it
			}
		},
		"moved": func(t *testing.T, dir string) { require.NoError(t, os.Rename(dir, dir+".old")) },
		"emptied": func(t *testing.T, dir string) {
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, e := range entries {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		},
		"replaced": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "usage")
			m := open(t, func(c *Config) { c.Dir, c.Window = dir, OnFlush })
			require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
			lose(t, dir)
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			left, ok := errors.AsType[*ShutdownError](m.Shutdown(ended))
			require.True(t, ok)
			require.EqualValues(t, 1, left.Pending)
			require.False(t, left.Durable)
			require.ErrorContains(t, left, "was moved, deleted or replaced")
		})
	}
}

// A nil context panics where it was passed, and leaves nothing behind.
func TestNilContexts(t *testing.T) {
	t.Parallel()
	m := open(t)
	require.NoError(t, m.Feature("f").Add(t.Context(), "s", 1))
	for site, call := range map[string]func(context.Context) error{"Flush": m.Flush, "Prepare": m.Prepare, "Shutdown": m.Shutdown} {
		require.Equal(t, "meter: "+site+" with a nil context; use context.Background()",
			panicOf(func() { _ = call(nil) })) //nolint:staticcheck // that is what is tested
	}
	require.EqualValues(t, 1, m.billed(t, "f", "s"))
	require.NoError(t, m.Shutdown(t.Context()))
}

func TestShutdownErrorText(t *testing.T) {
	t.Parallel()
	require.EqualError(t, &ShutdownError{Pending: 3, Durable: true, Cause: context.DeadlineExceeded},
		"meter: shutdown: 3 records not delivered, safe on disk: context deadline exceeded")
	require.EqualError(t, &ShutdownError{Pending: 1, Durable: true}, "meter: shutdown: 1 record not delivered, safe on disk")
	require.EqualError(t, &ShutdownError{Pending: 3}, "meter: shutdown: 3 records not delivered, not all of them on disk")
}

// TestNoRoomIsSaidBeforeTheWork refuses a call when it is known that it could
// not be counted.
func TestNoRoomIsSaidBeforeTheWork(t *testing.T) {
	t.Parallel()
	for _, refuse := range []bool{true, false} {
		m, err := Open(Config{Dir: t.TempDir(), MaxDisk: 1, RefuseWhenFull: refuse, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		f := m.Feature("report")
		ctx := WithCaller(context.Background(), Caller{Subject: "acme"})
		_, call, err := f.Begin(ctx)
		require.Error(t, m.Health())
		if refuse {
			require.ErrorIs(t, err, ErrFull)
			refused, ok := errors.AsType[*RefusedError](err)
			require.True(t, ok)
			require.Equal(t, 503, refused.Status())
			require.ErrorIs(t, f.Add(ctx, "acme", 1), ErrFull)
		} else {
			require.NoError(t, err)
			require.NoError(t, call.Commit())
			require.EqualValues(t, 1, f.Total("acme").Quantity)
		}
		_ = m.Shutdown(context.Background())
	}
}
