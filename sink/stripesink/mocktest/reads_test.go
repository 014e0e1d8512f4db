package mocktest

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stripe-mock answers with canned objects, of other identifiers and times than asked
// for, which the sink refuses to believe. What counts here is that it takes the
// requests.
func TestStripeMockTakesCancellationsAndReads(t *testing.T) {
	t.Parallel()
	mock := startMock(t)
	t.Run("cancellation", func(t *testing.T) {
		t.Parallel()
		tp := &tamper{mock, func(url.Values) {}, nil}
		_ = newSink(tp, fixture).Void(t.Context(), record("01-a"))
		require.Equal(t, []int{200}, tp.statuses)
	})
	t.Run("cancellation of nothing", func(t *testing.T) {
		t.Parallel()
		tp := &tamper{mock, func(f url.Values) { f.Del("event_name") }, nil}
		require.ErrorContains(t, newSink(tp, fixture).Void(t.Context(), record("01-a")), "'event_name' is required")
		require.Equal(t, []int{400}, tp.statuses)
	})
	t.Run("summary", func(t *testing.T) {
		t.Parallel()
		tp := &tamper{mock, nil, nil}
		end := time.Now()
		_, _ = newSink(tp, fixture).Usage(t.Context(), "tax-report", "cus_123", end.Add(-time.Hour), end)
		require.Equal(t, []int{200, 200}, tp.statuses)
	})
}
