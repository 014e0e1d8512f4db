package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// errDead is what every step of a ledger meets whose process has "died".
var errDead = errors.New("dead")

// mortal dies before the n-th step on disk: that one and all later ones fail,
// as if the process were gone.
type mortal struct {
	mu    sync.Mutex
	left  int
	dead  bool
	steps []string
}

func (m *mortal) step(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead {
		m.steps = append(m.steps, what)
		m.left--
		m.dead = m.left < 0
	}
	if m.dead {
		return errDead
	}
	return nil
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// abandon leaves a ledger as a killed process does: the lock goes, the files
// stay as they are.
func abandon(l *Ledger) {
	if l == nil {
		return
	}
	close(l.stop)
	l.maintained.Wait()
	l.store.step = nil
	l.closing.Do(func() {})
	_ = l.release()
}

// biller is a sink's other side, as a test sees it: what was applied, by ID.
type biller struct {
	applied map[string]int64
	sends   map[string]int
	records map[string]sink.Record
}

func newBiller() *biller {
	return &biller{applied: map[string]int64{}, sends: map[string]int{}, records: map[string]sink.Record{}}
}

func (b *biller) apply(t testing.TB, r sink.Record) {
	b.sends[r.ID]++
	before, seen := b.records[r.ID]
	if seen {
		before.Attempt, before.Doubt = r.Attempt, r.Doubt
		require.Equal(t, before, r, "a record never changes under its ID")
	}
	b.records[r.ID] = r
	b.applied[r.ID] = r.Quantity // a dedupe by ID: the second time changes nothing
}

func (b *biller) sum(subject string) (n int64) {
	for id, q := range b.applied {
		if b.records[id].Subject == subject {
			n += q
		}
	}
	return n
}

// TestDeathBetweenAnyTwoSteps runs a life with everything in it, dies before
// every step on disk in turn, and lets a second life finish the job.
func TestDeathBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for n := 0; ; n++ {
				died := false
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { died = liveAndDie(t, mode, dir, n) })
				if !died {
					require.Greater(t, n, 60, "the life had fewer steps than it should")
					t.Logf("%d steps", n)
					return
				}
			}
		})
	}
}

// liveAndDie reports whether the life was long enough to die before step n.
func liveAndDie(t *testing.T, mode, dir string, n int) (died bool) {
	m := &mortal{left: n}
	routes := func(c *Config) {
		c.Sync = SyncAlways
		c.Routes = []Route{
			{Name: "dedupes", DedupeWindow: sink.Forever, Timeout: 1},
			{Name: "strict", Timeout: 1},
		}
	}
	billers := []*biller{newBiller(), newBiller()}
	acked, unsure := map[string]int64{}, map[string]int64{}

	cfg := testConfig(dir, routes)
	cfg.step = m.step
	l, err := openMode(cfg, mode)
	if err == nil {
		live(t, l, m, billers, acked, unsure)
	}
	abandon(l)
	last := ""
	if len(m.steps) > 0 {
		last = m.steps[len(m.steps)-1]
	}
	where := fmt.Sprintf("died before step %d (%s)", n, last)

	l, err = openMode(testConfig(dir, routes), mode)
	require.NoError(t, err, where)
	wantBounded(t, l, acked, unsure, where)
	for _, id := range queued { // whoever was not told that it is counted delivers it again
		require.NoError(t, feature(t, l, "report", sink.Sum).AddEvent("queue", nil, time.Time{}, "", id, 1), where)
	}
	require.NoError(t, l.Rotate(context.Background()), where)
	for route, b := range billers {
		for _, r := range deliver(t, l, route, sink.Delivered) {
			b.apply(t, r)
		}
	}
	quarantined := map[string]map[string]int64{"dedupes": {}, "strict": {}}
	for r, o := range l.Quarantine() {
		require.Equal(t, sink.InDoubt, o, where)
		quarantined[r.Route][r.Subject] += r.Quantity
	}
	var total int64
	for subject, n := range acked {
		total += n
		got := billers[0].sum(subject)
		require.True(t, n <= got && got <= n+unsure[subject], "%s: %s was billed %d, acknowledged were %d", where, subject, got, n)
		strict := billers[1].sum(subject)
		require.LessOrEqual(t, strict, n+unsure[subject], "%s: %s billed too much without dedupe", where, subject)
		require.GreaterOrEqual(t, strict+quarantined["strict"][subject], n, "%s: %s lost without dedupe", where, subject)
	}
	require.EqualValues(t, len(queued), billers[0].sum("queue"), "%s: every event is billed once", where)
	strictly := billers[1].sum("queue")
	require.LessOrEqual(t, strictly, int64(len(queued)), "%s: events billed twice without dedupe", where)
	require.GreaterOrEqual(t, strictly+quarantined["strict"]["queue"], int64(len(queued)), "%s: events lost without dedupe", where)
	for id, sends := range billers[1].sends {
		require.Equal(t, 1, sends, "%s: %s sent again to a sink that does not dedupe", where, id)
	}
	require.Empty(t, quarantined["dedupes"], where)
	for _, line := range l.Books() {
		require.Zero(t, line.Pending, where)
		require.Zero(t, line.Damaged, where)
		require.Equal(t, line.Accepted, line.Delivered+line.InDoubt+line.Voided+line.Superseded, where)
	}
	require.NoError(t, l.foldSettled(), where)
	books := withoutDuplicates(l.Books()) // those count from Open on
	require.NoError(t, l.Close(context.Background()), where)

	l, err = openMode(testConfig(dir, routes), mode)
	require.NoError(t, err, where)
	require.Equal(t, books, withoutDuplicates(l.Books()), where)
	wantBounded(t, l, acked, unsure, where)
	require.NoError(t, l.Close(context.Background()), where)
	return m.dead
}

// wantBounded requires that what is there of a subject's use is known to be in its
// period.
func wantBounded(t *testing.T, l *Ledger, acked, unsure map[string]int64, where string) {
	f, err := l.Feature("report", sink.Sum)
	require.NoError(t, err)
	total, _, _ := f.Total("bounded")
	require.GreaterOrEqual(t, total, acked["bounded"], where)
	require.LessOrEqual(t, total, acked["bounded"]+unsure["bounded"], where)
	if total == 0 {
		return
	}
	tally := f.Tally("bounded")
	require.NotNil(t, tally, where)
	s := tally.Standing()
	require.Equal(t, total, s.Counted, where)
	require.Contains(t, []int64{3600, 7200}, s.End-s.Start, where)
}

// queued are the events that a queue delivers until each was acknowledged.
var queued = []string{"1", "2", "3", "4", "5"}

// live is a life with counts, deliveries of every outcome, a decision, a merge
// and a fold.
func live(t *testing.T, l *Ledger, m *mortal, billers []*biller, acked, unsure map[string]int64) {
	f, err := l.Feature("report", sink.Sum)
	require.NoError(t, err)
	count := func(subject string, n int64) {
		if m.isDead() {
			return
		}
		switch err := f.Add(subject, n); {
		case m.isDead() || errors.Is(err, ErrUnsynced):
			unsure[subject] += n // nobody was told
		case err == nil:
			acked[subject] += n
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	ctx := context.Background()
	send := func(route, most int, as sink.Outcome) {
		b, err := l.Take(route, most, nil)
		if err != nil || b == nil || m.isDead() {
			return
		}
		results := make([]Result, len(b.Records))
		for i, r := range b.Records {
			if as == sink.Delivered || as == sink.InDoubt {
				billers[route].apply(t, r)
			}
			results[i] = Result{Outcome: as}
		}
		_ = b.Resolve(results)
	}
	event := func(id string) {
		if err := f.AddEvent("queue", nil, time.Time{}, "", id, 1); err == nil || errors.Is(err, ErrUnsynced) {
			return // it comes again in the next life
		} else if !m.isDead() {
			t.Errorf("unexpected: %v", err)
		}
	}
	q := Quota{Limit: 1000, Start: time.Now().Unix(), End: time.Now().Add(time.Hour).Unix()}
	bounded := func(n int64) {
		if m.isDead() {
			return
		}
		tally, a, err := f.Reserve(nil, "bounded", &q, n, true)
		if m.isDead() {
			return
		}
		if err != nil || a != Within {
			t.Errorf("unexpected: %v, %v", a, err)
			return
		}
		if err := f.plain.find("bounded").AddHeld(n, tally, n, true); err == nil && !m.isDead() {
			acked["bounded"] += n
		} else {
			unsure["bounded"] += n
		}
	}
	count("acme", 5)
	event("1")
	event("2")
	bounded(2)
	count("bolt", 7)
	event("1")
	_ = l.Rotate(ctx)
	event("2")
	send(0, 1, sink.Delivered)
	send(0, 1, sink.InDoubt)
	send(1, 1, sink.Delivered)
	send(1, 1, sink.InDoubt)
	for r := range l.Quarantine() {
		// The operator has looked: it was applied.
		_ = l.Settle(ctx, r.Route, r.ID, sink.Delivered, "seen on the account")
	}
	count("acme", 11)
	count("cask", 13)
	q.End += 3600 // put off
	bounded(3)
	event("3")
	_ = l.Rotate(ctx)
	bounded(4)
	event("2")
	event("4")
	count("acme", 17)
	_ = l.Rotate(ctx)
	sealed := l.sealedNow()
	if len(sealed) >= 2 {
		last := sealed[len(sealed)-2:]
		l.tidying.Lock()
		_ = l.mergeHour(0, last)
		_ = l.mergeHour(1, last)
		l.tidying.Unlock()
	}
	send(0, 100, sink.Pending)
	send(1, 1, sink.Delivered)
	_ = l.foldSettled()
	count("acme", 19)
	l.periods.mu.Lock()
	l.periods.broken = true // so it is written anew
	l.periods.mu.Unlock()
	l.tidyPeriods()
	bounded(5)
	event("1")
	event("4")
	event("5")
	_ = l.Rotate(ctx)
	send(0, 100, sink.Delivered)
	_ = l.foldSettled()
	count("bolt", 23)
}
