package chaos

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/internal/disk"
	"github.com/inprocess/meter/sink"
)

// world is a directory in which one child after the other counts and dies.
type world struct {
	t      *testing.T
	root   string
	ledger string // elsewhere, if not empty
	// forgets says that the biller knows no ID again, so that doubt is an operator's.
	forgets bool
	faulty  bool     // its disk is not fine
	url     string   // of the biller, if that is a server in this process …
	store   *witness // … which keeps there what it is sent
	seed    uint64
	rounds  uint64
	kills   int
	oracle  *oracle
	began   time.Time
	said    bytes.Buffer // what every process warned of, for whoever has to explain a violation
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), seed: seed, oracle: newOracle(), began: time.Now()}
	if ok, why := disk.Mappable(w.root); !ok {
		t.Skipf("SKIPPED: counts in %s are not promised to outlive a kill: %s", w.root, why)
	}
	t.Logf("seed %d", seed)
	return w
}

// order is what the next child is told, but for what a test changes.
func (w *world) order(rng *rand.Rand) order {
	w.rounds++
	syncs := []time.Duration{meter.SyncAlways, 100 * time.Millisecond, meter.SyncNever}
	return order{
		Root: w.root, Ledger: w.ledger, URL: w.url, Seed: rng.Uint64(), Sync: syncs[rng.IntN(len(syncs))], Restarts: rng.IntN(3) == 0, Retain: time.Duration(rng.IntN(2)) * time.Minute,
		Level: int64(w.rounds) << 32, Subject: uint32(w.rounds) << 16,
	}
}

// moment says when a child is killed.
type moment struct {
	from  noteKind      // after this note …
	wait  time.Duration // … and this time
	atEnd bool          // but not before the wall clock's second has ended: that is when windows do
}

func randomMoment(rng *rand.Rand) moment {
	m := moment{from: ready, wait: time.Duration(rng.Int64N(int64(150 * time.Millisecond)))}
	switch rng.IntN(8) {
	case 0: // while it recovers what the one before left
		m.from, m.wait = started, m.wait/8
	case 1, 2:
		m.atEnd, m.wait = true, m.wait/8
	}
	return m
}

// life is a running child.
type life struct {
	cmd    *exec.Cmd
	said   map[noteKind]*signal
	done   chan error // of reading its notes
	stderr bytes.Buffer
}

// command is how a child is started.
func command(o order, before ...string) *exec.Cmd {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	args := append(before, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	return cmd
}

// start starts a child whose notes go to the oracle.
func (w *world) start(cmd *exec.Cmd) *life {
	w.t.Helper()
	if w.store != nil {
		w.store.behave(outages)
	}
	runtime.LockOSThread() // the child is tied to the thread that starts it
	l := &life{cmd: cmd, done: make(chan error, 1), said: map[noteKind]*signal{started: newSignal(), ready: newSignal(), ended: newSignal()}}
	r, in, err := os.Pipe()
	require.NoError(w.t, err)
	cmd.Stdout, cmd.Stderr = in, &l.stderr
	tie(cmd)
	require.NoError(w.t, cmd.Start())
	require.NoError(w.t, in.Close())
	go func() {
		defer r.Close()
		l.done <- readNotes(r, func(n note) {
			if s := l.said[n.kind]; s != nil {
				s.fire()
			}
			w.oracle.hear(n)
		})
	}()
	return l
}

// bury waits for the end of a child and reports whether it was a kill.
func (w *world) bury(l *life) (killed bool) {
	w.t.Helper()
	err := <-l.done
	dead := l.cmd.Wait()
	runtime.UnlockOSThread()
	require.NoError(w.t, err)
	w.oracle.killed()
	fmt.Fprintf(&w.said, "round %d:\n%s", w.rounds, l.stderr.String())
	if code := l.cmd.ProcessState.ExitCode(); code > 0 {
		w.t.Fatalf("seed %d, round %d: the child failed: %v\n%s", w.seed, w.rounds, dead, l.stderr.String())
	}
	if dead != nil {
		w.kills++
	}
	return dead != nil
}

// kill starts a child and kills it at some moment.
func (w *world) kill(o order, at moment) {
	w.t.Helper()
	l := w.start(command(o))
	select {
	case <-l.said[at.from].ch:
	case err := <-l.done: // it failed: bury says how
		l.done <- err
	}
	wait := at.wait
	if at.atEnd {
		wait += time.Until(time.Now().Truncate(time.Second).Add(time.Second - 5*time.Millisecond))
	}
	time.Sleep(wait)
	_ = l.cmd.Process.Kill() // it may have failed: bury says how
	w.bury(l)
}

// open opens the directory in this process.
func (w *world) open() *meter.Meter {
	w.t.Helper()
	if w.store != nil {
		w.store.behave(none)
	}
	o := order{Root: w.root, Ledger: w.ledger, URL: w.url, Sync: meter.SyncNever}
	if w.forgets {
		o.Fault = takesAll
	}
	cfg := o.config(w.seed + w.rounds)
	fmt.Fprintf(&w.said, "parent after round %d:\n", w.rounds)
	cfg.Logger = warnings(&w.said)
	m, err := meter.Open(cfg)
	require.NoError(w.t, err, "seed %d, round %d", w.seed, w.rounds)
	return m
}

// visit is a process that lives in peace.
func (w *world) visit() {
	w.t.Helper()
	m := w.open()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	require.NoError(w.t, m.Flush(ctx))
	require.NoError(w.t, m.Shutdown(ctx))
}

// inMemory is what a process warns of whose counts a kill would take.
var inMemory = regexp.MustCompile("counting (goes on in memory|in memory only)")

// settle delivers everything that is open and returns what is wrong with it.
func (w *world) settle() []violation {
	w.t.Helper()
	m := w.open()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	for open := int64(1); open > 0 && ctx.Err() == nil; {
		flushed := m.Flush(ctx)
		w.decide(m)
		open = 0
		for _, l := range m.Books() {
			open += l.Pending + l.InDoubt
		}
		require.True(w.t, open > 0 || flushed == nil, "seed %d: %v", w.seed, flushed)
	}
	e := evidence{books: m.Books(), health: m.Health()}
	e.heap = !w.faulty && inMemory.Match(w.said.Bytes())
	names, err := filepath.Glob(filepath.Join(w.root, "usage.jsonl*"))
	require.NoError(w.t, err)
	for _, name := range names {
		lines, torn, err := readLines(name) // the lock is empty
		require.NoError(w.t, err)
		e.lines, e.torn = append(e.lines, lines...), e.torn+torn
	}
	e.damaged, err = filepath.Glob(filepath.Join(cmp.Or(w.ledger, filepath.Join(w.root, "ledger")), "damaged", "*"))
	require.NoError(w.t, err)
	if w.faulty { // what a failed write spoiled was kept, and written anew
		for _, name := range e.damaged {
			require.NoError(w.t, os.Remove(name))
		}
		e.damaged, e.health = nil, m.Health()
	}
	e.attempts, _, err = readLines(filepath.Join(w.root, "attempts.jsonl"))
	require.NoError(w.t, err)
	if now := time.Now().UTC(); now.Month() == w.began.UTC().Add(-mostLate).Month() {
		e.months = w.months(m, e.lines)
	}
	require.NoError(w.t, m.Shutdown(ctx))
	// Consumed, and nothing of them can be sent again.
	for _, name := range append(names, filepath.Join(w.root, "attempts.jsonl")) {
		if filepath.Ext(name) != ".lock" {
			_ = os.Remove(name) // perhaps there is none
		}
	}
	found := w.oracle.judge(e)
	if len(found) > 0 {
		w.t.Logf("what was warned of:\n%s", w.said.String())
	}
	return found
}

// decide is the operator, who looks into the biller's file.
func (w *world) decide(m *meter.Meter) {
	w.t.Helper()
	if !w.forgets {
		return
	}
	lines, _, err := readLines(filepath.Join(w.root, "usage.jsonl"))
	require.NoError(w.t, err)
	billed := map[string]bool{}
	for _, l := range lines {
		billed[l.ID] = true
	}
	for r, outcome := range m.Quarantine() {
		require.Equal(w.t, sink.InDoubt, outcome)
		as := sink.Pending
		if billed[r.ID] {
			as = sink.Delivered
		}
		require.NoError(w.t, m.Settle(w.t.Context(), "file", r.ID, as, "as the file says"))
	}
}

// months asks for the Total of everybody who was ever billed.
func (w *world) months(m *meter.Meter, lines []line) map[seriesKey]int64 {
	totals := map[seriesKey]int64{}
	for _, f := range features {
		if f.kind != sink.Sum {
			continue
		}
		feature := m.Feature(f.name)
		ask := func(k seriesKey) {
			if k.feature == f.name {
				totals[k] = feature.Total(k.subject).Quantity
			}
		}
		for k := range w.oracle.billed {
			ask(k)
		}
		for _, l := range lines {
			ask(seriesKey{l.Feature, l.Subject})
		}
	}
	return totals
}

// log tells what it was that held.
func (w *world) log() {
	f := w.oracle.sums
	w.t.Logf("seed %d: %d lives, %d of them killed, %d counts of %d units acknowledged, %d refused, %d under way at kills, %d records, in %v",
		w.seed, w.rounds, w.kills, f.counts, f.units, f.refused, f.inFlight, f.records, time.Since(w.began).Round(time.Second))
}
