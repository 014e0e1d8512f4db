package metertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/metertest"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
	"github.com/stretchr/testify/require"
)

// spy is a testing.TB that can fail without the test.
type spy struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (s *spy) Helper()                   {}
func (s *spy) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *spy) Logf(string, ...any)       {}
func (s *spy) Errorf(f string, a ...any) { s.said = append(s.said, fmt.Sprintf(f, a...)) }
func (s *spy) Fatalf(f string, a ...any) {
	s.Errorf(f, a...)
	runtime.Goexit()
}

// says runs f with a spy and returns what it failed with.
func says(f func(testing.TB)) string {
	s := &spy{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(s)
	}()
	<-done
	for _, c := range s.cleanups {
		c()
	}
	return strings.Join(s.said, "\n")
}

func TestRequire(t *testing.T) {
	t.Parallel()
	m := metertest.New(t)
	report, seats := m.Feature("report"), m.Feature("seats", meter.Kind(sink.Max))
	require.NoError(t, report.Add(t.Context(), "cus_1", 2))
	require.NoError(t, report.Add(meter.WithDimension(t.Context(), "region", "eu"), "cus_1", 1))
	require.NoError(t, seats.Set(t.Context(), "cus_2", 7))

	require.Contains(t, says(m.RequireNothingElse), `"cus_1": 3 of "report"`)
	m.RequireBilled(t, "report", "cus_1", 3)
	m.RequireBilled(t, "report", "cus_9", 0)
	require.Contains(t, says(m.RequireNothingElse), `"cus_2": 7 of "seats"`)
	require.NotContains(t, says(m.RequireNothingElse), "cus_1")
	m.RequireBilled(t, "seats", "cus_2", 7)
	m.RequireNothingElse(t)

	require.NoError(t, report.Add(t.Context(), "cus_1", 1))
	said := says(func(t testing.TB) { m.RequireBilled(t, "report", "cus_1", 3) })
	require.Contains(t, said, `"cus_1" was billed 4 of "report", want 3`)
	require.Contains(t, said, `"cus_2": 7 of "seats"`)
}

func TestFailDeliveries(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"not applied": sink.ErrNotApplied, "doubt": errors.New("connection lost"), "nil": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := metertest.New(t)
			report := m.Feature("report")
			m.FailDeliveries(2, err)
			require.NoError(t, report.Add(t.Context(), "cus_1", 1))
			require.Error(t, m.Flush(t.Context()))
			m.RequireBilled(t, "report", "cus_1", 1)
			m.RequireNothingElse(t)
		})
	}
	t.Run("rejected", func(t *testing.T) {
		t.Parallel()
		m := metertest.New(t)
		m.FailDeliveries(1, sink.ErrRejected)
		require.NoError(t, m.Feature("report").Add(t.Context(), "cus_1", 1))
		m.RequireBilled(t, "report", "cus_1", 0)
		require.EqualValues(t, 1, m.Books()[0].Rejected)
	})
}

func TestNew(t *testing.T) {
	t.Parallel()
	require.Contains(t, says(func(t testing.TB) {
		metertest.New(t, func(c *meter.Config) { c.Retain = -1 })
	}), "Config.Retain")

	own := memsink.New()
	m := metertest.New(t, func(c *meter.Config) { c.Sinks = []meter.Route{{Name: "own", Sink: own}} })
	require.NoError(t, m.Feature("report").Add(t.Context(), "cus_1", 1))
	m.RequireBilled(t, "report", "cus_1", 1)
	require.EqualValues(t, 1, own.Total("report", "cus_1"))

	var closed error
	require.Empty(t, says(func(t testing.TB) {
		m := metertest.New(t)
		f := m.Feature("report")
		m.FailDeliveries(1, sink.ErrNotApplied)
		_ = f.Add(context.Background(), "cus_1", 1)
		t.Cleanup(func() { closed = f.Add(context.Background(), "cus_1", 1) })
	}), "leaving things undelivered is no failure")
	require.ErrorIs(t, closed, meter.ErrClosed)
}

// The code under test may well own the meter, and shut it down.
func TestRequireAfterShutdown(t *testing.T) {
	t.Parallel()
	m := metertest.New(t)
	require.NoError(t, m.Feature("report").Add(t.Context(), "cus_1", 3))
	require.NoError(t, m.Feature("search").Add(t.Context(), "cus_1", 1))
	require.NoError(t, m.Shutdown(t.Context()))
	m.RequireBilled(t, "report", "cus_1", 3)
	require.Contains(t, says(func(t testing.TB) { m.RequireBilled(t, "report", "cus_1", 4) }), "want 4")
	require.Contains(t, says(m.RequireNothingElse), `"cus_1": 1 of "search"`)
	m.RequireBilled(t, "search", "cus_1", 1)
	m.RequireNothingElse(t)
	for name, err := range map[string]error{"not applied": sink.ErrNotApplied, "doubt": errors.New("connection lost")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := metertest.New(t)
			m.FailDeliveries(100, err)
			require.NoError(t, m.Feature("report").Add(t.Context(), "cus_1", 3))
			require.Error(t, m.Shutdown(t.Context()))
			said := says(func(t testing.TB) { m.RequireBilled(t, "report", "cus_1", 0) })
			require.Contains(t, said, "shut down with 3 units still to be delivered")
			require.Contains(t, says(m.RequireNothingElse), "still to be delivered")
		})
	}
}

// Asking what was billed doesn't take a window's time.
func TestFast(t *testing.T) {
	t.Parallel()
	m := metertest.New(t)
	report := m.Feature("report")
	began := time.Now()
	for i := range 20 {
		require.NoError(t, report.Add(t.Context(), "cus_1", 1))
		m.RequireBilled(t, "report", "cus_1", int64(i+1))
	}
	require.Less(t, time.Since(began), 10*time.Second)
}

func ExampleNew() {
	t := &testing.T{} // the test's own
	m := metertest.New(quiet{t}, func(c *meter.Config) {
		c.Identify = func(r *http.Request) (meter.Caller, error) {
			return meter.Caller{Subject: r.Header.Get("X-Customer")}, nil
		}
	})
	createReport := meter.Middleware(m.Feature("tax-report"))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	r := httptest.NewRequest("POST", "/reports", nil)
	r.Header.Set("X-Customer", "cus_1")
	m.FailDeliveries(1, sink.ErrNotApplied) // an outage of the biller changes nothing
	createReport.ServeHTTP(httptest.NewRecorder(), r)

	m.RequireBilled(t, "tax-report", "cus_1", 1)
	m.RequireNothingElse(t)
	fmt.Println("failed:", t.Failed())
	// Output: failed: false
}

// quiet is a testing.TB outside of a test, which has no cleanup.
type quiet struct{ testing.TB }

func (quiet) Cleanup(func()) {}
func (quiet) Helper()        {}
