package meter

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter/license"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// bench is a meter over memory with one route to a memsink.
type bench struct {
	*Meter
	sink *memsink.Sink
	logs *logBook
}

func open(t testing.TB, change ...func(*Config)) bench {
	t.Helper()
	b := bench{sink: memsink.New(), logs: &logBook{}}
	cfg := Config{
		Dir:    InMemory,
		Window: OnFlush, // no minute ends in the middle of a test
		Sinks:  []Route{{Name: "memory", Sink: b.sink}},
		Logger: slog.New(b.logs),
	}
	for _, c := range change {
		c(&cfg)
	}
	m, err := Open(cfg)
	require.NoError(t, err)
	b.Meter = m
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, m.Books().Check(), "the books at the end of the test")
		_ = m.Shutdown(ctx) // tests that care have called it
	})
	return b
}

// billed flushes and says what arrived.
func (b bench) billed(t testing.TB, feature, subject string) int64 {
	t.Helper()
	require.NoError(t, b.Flush(t.Context()))
	return b.sink.Total(feature, subject)
}

func bySubject(r *http.Request) (Caller, error) {
	return Caller{Subject: r.Header.Get("X-Subject")}, nil
}

// static is a Checker over a table of keys and subjects.
func static(verdicts map[string]license.Verdict) license.Checker {
	return license.CheckerFunc(func(_ context.Context, q license.Query) (license.Verdict, error) {
		name := q.Key.Reveal()
		if name == "" {
			name = q.Subject
		}
		if v, ok := verdicts[name]; ok {
			return v, nil
		}
		if name == "panic" {
			panic("a bug of the Checker")
		}
		if name == "down" {
			return license.Verdict{}, errors.New("license server: connection refused")
		}
		return license.Verdict{Status: license.Denied, Reason: license.NotFound}, nil
	})
}

func allowed(subject string) license.Verdict {
	return license.Verdict{Status: license.Allowed, Subject: subject}
}

func asRefused(t testing.TB, err error) *RefusedError {
	t.Helper()
	refused, ok := errors.AsType[*RefusedError](err)
	require.True(t, ok, "want a *RefusedError, got %v", err)
	return refused
}

func as(subject string) context.Context {
	return WithCaller(context.Background(), Caller{Subject: subject})
}

// logBook keeps log lines.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logBook) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logBook) WithGroup(string) slog.Handler            { return l }
func (l *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

func (l *logBook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

// sinkFunc is a sink with an ID memory, so that doubt is sent again.
type sinkFunc struct {
	sink.Func
	limits sink.Limits
}

func (s sinkFunc) Limits() sink.Limits { return s.limits }
