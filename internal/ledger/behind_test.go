package ledger

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// An event that comes while a window is being sealed, in which its series counted,
// counts in the quota as soon as that is done.
func TestEventWhileAWindowIsSealed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		l := open(t, mode, t.TempDir())
		f := feature(t, l, "calls", sink.Sum)
		q := Quota{Limit: 10}
		require.Equal(t, 3, admitted(t, f, "s", fixed(q), 3))
		require.NoError(t, l.rotating.lock(t.Context()))
		old := l.active.Load()
		next := l.heapSegment(firstExtent)
		next.head.start, next.since = l.nextStart(old), old.since
		l.retire(old, next)
		if err := f.event("s", "an ID", 5); err != nil {
			require.ErrorIs(t, err, ErrUnsynced, "it waits for room, as far as the ledger knows")
		}
		l.sealRetired()
		l.rotating.unlock()
		require.EqualValues(t, 8, f.Tally("s").Standing().Counted)
		require.Equal(t, 2, admitted(t, f, "s", fixed(q), 100))
		l.behind.mu.Lock()
		require.Empty(t, l.behind.all)
		l.behind.mu.Unlock()
	})
}
