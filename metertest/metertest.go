// Package metertest helps to test code that counts with meter: it runs a real
// [meter.Meter] in memory and says what would have been billed.
//
//	m := metertest.New(t)
//	report := m.Feature("tax-report")
//	… run the code under test …
//	m.RequireBilled(t, "tax-report", "cus_1", 1)
//	m.RequireNothingElse(t)
package metertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
	"github.com/inprocess/meter/sink/memsink"
)

// route is the name of the route to the kit's own sink.
const route = "metertest"

// patience is how long a delivery in memory may take before the test fails.
const patience = 30 * time.Second

// Meter is a meter in memory whose deliveries the test sees.
//
// Concurrency: safe for concurrent use. The Require methods end the test, so they
// belong on its goroutine.
type Meter struct {
	*meter.Meter
	cfg     meter.Config
	biller  *biller
	crashed bool

	mu      sync.Mutex
	settled map[account]bool // what RequireBilled was asked about
}

type account struct{ feature, subject string }

// New returns a meter for one test. change may alter its Config: set Identify or
// a Checker, add further routes. Beneath is Dir: meter.InMemory, a route
// "metertest" to the kit's own sink, and windows that only end when the kit asks
// what was billed. When the test ends, the meter is shut down, and the test
// fails if the books don't balance.
func New(t testing.TB, change ...func(*meter.Config)) *Meter {
	t.Helper()
	m := &Meter{biller: &biller{memory: memsink.New()}, settled: map[account]bool{}}
	m.cfg = meter.Config{Dir: meter.InMemory, Window: meter.OnFlush}
	for _, c := range change {
		c(&m.cfg)
	}
	m.cfg.Sinks = append(slices.Clone(m.cfg.Sinks), meter.Route{Name: route, Sink: m.biller})
	m.begin(t)
	return m
}

func (m *Meter) begin(t testing.TB) {
	t.Helper()
	opened, err := meter.Open(m.cfg)
	if err != nil {
		t.Fatalf("metertest: %v", err)
	}
	m.Meter = opened
	t.Cleanup(func() {
		if m.crashed {
			return
		}
		if err := m.Books().Check(); err != nil {
			t.Errorf("metertest: %v\n%v", err, m.Books())
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Logf("metertest: %v", err) // a test may well leave things undelivered
		}
	})
}

// RequireBilled delivers everything counted so far and ends the test unless
// subject was billed exactly n units of feature: of each series the sum, the
// highest level or the latest one, by the feature's kind. Deliveries that fail on
// purpose (see [Meter.FailDeliveries]) are repeated. If the code under test has shut
// the meter down, what that has delivered is what counts, and the test ends if it
// left something open.
func (m *Meter) RequireBilled(t testing.TB, feature, subject string, n int64) {
	t.Helper()
	m.deliver(t)
	m.mu.Lock()
	m.settled[account{feature, subject}] = true
	m.mu.Unlock()
	if got := m.biller.memory.Total(feature, subject); got != n {
		t.Fatalf("metertest: %q was billed %d of %q, want %d; billed in all:%s", subject, got, feature, n, cmp.Or(m.statement(nil), " nothing"))
	}
}

// RequireNothingElse delivers everything counted so far, as [Meter.RequireBilled]
// does, and ends the test if anything was billed that no RequireBilled has asked
// about.
func (m *Meter) RequireNothingElse(t testing.TB) {
	t.Helper()
	m.deliver(t)
	m.mu.Lock()
	settled := maps.Clone(m.settled)
	m.mu.Unlock()
	if rest := m.statement(settled); rest != "" {
		t.Fatalf("metertest: billed beside what was expected:%s", rest)
	}
}

// FailDeliveries lets the next n deliveries of at least one record fail with err:
// they record nothing. Wrap sink.ErrNotApplied or sink.ErrRejected to say so; any
// other error is doubt, and the record is sent again. It replaces what an earlier
// call has left.
func (m *Meter) FailDeliveries(n int, err error) {
	m.biller.mu.Lock()
	defer m.biller.mu.Unlock()
	m.biller.failures, m.biller.err = n, err
}

// deliver flushes until nothing is open, as long as the failures are deliberate.
func (m *Meter) deliver(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		before := m.biller.failed()
		err := m.Flush(ctx)
		if errors.Is(err, meter.ErrClosed) {
			err = m.Shutdown(ctx) // the other one may still run: waits for its end
			if n := m.open(); n > 0 {
				t.Fatalf("metertest: the meter was shut down with %d units still to be delivered: %v\n%v", n, err, m.Books())
			}
			return
		}
		if err == nil {
			return
		}
		if m.biller.failed() == before || ctx.Err() != nil {
			t.Fatalf("metertest: not everything could be delivered: %v\n%v", err, m.Books())
		}
	}
}

// open is how many units are still to be delivered. What the kit's own sink doubts
// is one of them, for it can be asked again; elsewhere an operator has to decide.
func (m *Meter) open() (n int64) {
	for _, l := range m.Books() {
		n += l.Pending
		if l.Route == route {
			n += l.InDoubt
		}
	}
	return n
}

// statement lists what was billed, a line per feature and subject, but for except.
func (m *Meter) statement(except map[account]bool) string {
	var lines []string
	for _, r := range m.biller.memory.Records() {
		if a := (account{r.Feature, r.Subject}); !except[a] {
			lines = append(lines, fmt.Sprintf("\n\t%q: %d of %q", a.subject, m.biller.memory.Total(a.feature, a.subject), a.feature))
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "")
}

// biller is a memsink that can fail.
type biller struct {
	memory *memsink.Sink

	mu       sync.Mutex
	failures int // to come
	err      error
	count    int // that came
}

var errFailed = errors.New("metertest: failed on purpose")

func (b *biller) Limits() sink.Limits { return b.memory.Limits() }
func (b *biller) Kinds() []sink.Kind  { return b.memory.Kinds() }

func (b *biller) Deliver(ctx context.Context, records []sink.Record) error {
	if err := b.failure(); err != nil {
		return err
	}
	return b.memory.Deliver(ctx, records)
}

func (b *biller) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures <= 0 {
		return nil
	}
	b.failures--
	b.count++
	if b.err == nil {
		return errFailed
	}
	return b.err
}

func (b *biller) failed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}
