package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// Window was OnFlush, and is a minute after the restart: what the killed process has
// counted shortly before it died is remembered from then on.
func TestEventIsRememberedAfterKillAndShorterWindow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		sleepTo(1, 10, 1, 0, 0)
		l := open(t, "mapped", dir)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(20 * time.Hour)
		require.NoError(t, f.event("acme", "1", 5))
		require.NoError(t, l.active.Load().journal.sync())
		abandon(l)
		l = open(t, "mapped", dir, minutely)
		f = feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.event("acme", "1", 5))
		for range 12 {
			time.Sleep(time.Hour)
			rotate(t, l)
			deliver(t, l, 0, sink.Delivered)
			l.tidy()
		}
		require.NoError(t, f.event("acme", "1", 5), "again after 12 of 24 h")
		rotate(t, l)
		require.EqualValues(t, 6, totalOf(f, "acme"))
	})
}

// Rotation was stalled (suspended machine, hanging disk) for longer than the window in
// which events are remembered, and the process is killed before it is made up for.
func TestEventAfterASuspendedNight(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		midMonth()
		l := open(t, "mapped", dir, minutely)
		f := feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		unlock := holdSealing(t, l)
		time.Sleep(36 * time.Hour)
		require.NoError(t, f.event("acme", "1", 5))
		require.NoError(t, l.active.Load().journal.sync())
		unlock2 := unlock
		close(l.stop)
		l.closing.Do(func() {})
		l.maintained.Wait()
		_ = l.release()
		unlock2()
		l = open(t, "mapped", dir, minutely)
		f = feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.event("acme", "1", 5), "again, at once")
		require.EqualValues(t, 6, sum(func() []sink.Record { rotate(t, l); return deliver(t, l, 0, sink.Delivered) }(), "calls", "acme"))
	})
}

// As with a shorter Window, for whoever adopts the directory of a process with a longer one.
func TestAdopterRemembersEvents(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		midMonth()
		theirs := open(t, "mapped", base+"/theirs") // OnFlush, as a batch that has no windows
		f := feature(t, theirs, "calls", sink.Sum)
		require.NoError(t, f.Add("acme", 1))
		time.Sleep(36 * time.Hour)
		require.NoError(t, f.event("acme", "1", 5))
		require.NoError(t, theirs.active.Load().journal.sync())
		abandon(theirs)
		l := open(t, "mapped", base+"/ours", minutely, func(c *Config) { c.Adopt = base + "/*" })
		f = feature(t, l, "calls", sink.Sum)
		require.NoError(t, f.event("acme", "1", 5), "a moment later")
		rotate(t, l)
		require.EqualValues(t, 6, sum(deliver(t, l, 0, sink.Delivered), "calls", "acme"))
	})
}
