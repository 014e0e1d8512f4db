package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inprocess/meter/internal/ledger"
	"github.com/inprocess/meter/sink"
	"github.com/stretchr/testify/require"
)

// fakeLedger keeps the ledger's promises in memory, and its users to theirs.
type fakeLedger struct {
	t       testing.TB
	mu      sync.Mutex
	routes  []*fakeRoute
	last    int
	settled []string

	counted  func(open int) // called by OpenRecords before it returns
	resolved func()         // called by Resolve before it returns
}

type fakeRoute struct {
	quarantinesDoubt bool
	expired          bool // Take quarantines what is in doubt
	takeErr          error
	resolveErr       error
	records          []*fakeRecord // open or being sent, oldest first
	ended            map[sink.Outcome]int
	busy             map[[2]string]bool
	ready            chan struct{}
	takes            int
	end              time.Time
	doubts           []ledger.Doubt
}

type fakeRecord struct {
	sink.Record
	state     sink.Outcome
	notBefore time.Time
	postponed bool
}

func newFakeLedger(t testing.TB, routes int) *fakeLedger {
	l := &fakeLedger{t: t}
	for range routes {
		l.routes = append(l.routes, &fakeRoute{
			ended: map[sink.Outcome]int{},
			busy:  map[[2]string]bool{},
			ready: make(chan struct{}, 1),
		})
	}
	return l
}

func (l *fakeLedger) Postponed(route int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.routes[route].records {
		if r.postponed && r.notBefore.After(time.Now()) {
			n++
		}
	}
	return n
}

func (l *fakeLedger) SoonestEnd() time.Time { return time.Now() }

func (l *fakeLedger) EndWindowAt(route int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routes[route].end = at
}

func (l *fakeLedger) Doubts(route int) []ledger.Doubt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.routes[route].doubts)
}

func (l *fakeLedger) Settle(_ context.Context, route, id string, as sink.Outcome, note string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.routes {
		r.doubts = slices.DeleteFunc(r.doubts, func(d ledger.Doubt) bool { return d.ID == id })
	}
	l.settled = append(l.settled, fmt.Sprintf("%s %s %v: %s", route, id, as, note))
	return nil
}

// add seals one record on every route.
func (l *fakeLedger) add(feature, subject string) string {
	return l.addKind(feature, subject, sink.Sum)
}

func (l *fakeLedger) addKind(feature, subject string, kind sink.Kind) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	id := fmt.Sprintf("r%d", l.last)
	for _, r := range l.routes {
		r.records = append(r.records, &fakeRecord{Record: sink.Record{
			ID: id, Feature: feature, Subject: subject, Kind: kind, Quantity: 1,
			Dimensions: map[string]string{"region": "eu"},
		}})
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
	return id
}

// addMany seals n records of as many subjects.
func (l *fakeLedger) addMany(n int) {
	for i := range n {
		l.add("f", fmt.Sprintf("s%d", i))
	}
}

func (l *fakeLedger) Take(route, most int, hold func(sink.Feature) bool) (*Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.routes[route]
	r.takes++
	if r.takeErr != nil {
		return nil, r.takeErr
	}
	if r.expired {
		r.records = slices.DeleteFunc(r.records, func(record *fakeRecord) bool { return record.state == sink.InDoubt })
	}
	now := time.Now()
	var taken []*fakeRecord
	busy := map[[2]string]bool{}
	for _, record := range r.records {
		key := [2]string{record.Subject, record.Feature}
		if len(taken) == most {
			break
		}
		if record.state == sink.Attempted || r.busy[key] && !busy[key] || record.notBefore.After(now) || hold(sink.Feature{Name: record.Feature, Kind: record.Kind}) {
			continue
		}
		record.Attempt++
		record.state = sink.Attempted
		r.busy[key], busy[key] = true, true
		taken = append(taken, record)
	}
	if len(taken) == 0 {
		return nil, nil
	}
	batch := &Batch{}
	for _, record := range taken {
		batch.Records = append(batch.Records, record.Record)
	}
	var resolved atomic.Bool
	batch.Resolve = func(results []ledger.Result) error {
		if resolved.Swap(true) {
			l.t.Error("batch resolved twice")
		}
		err := l.resolve(r, taken, results)
		if l.resolved != nil {
			l.resolved()
		}
		return err
	}
	return batch, nil
}

func (l *fakeLedger) resolve(r *fakeRoute, taken []*fakeRecord, results []ledger.Result) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.resolveErr != nil {
		return r.resolveErr
	}
	if len(results) != len(taken) {
		l.t.Errorf("%d results for %d records", len(results), len(taken))
	}
	for i, record := range taken {
		delete(r.busy, [2]string{record.Subject, record.Feature})
		record.state, record.notBefore = results[i].Outcome, results[i].NotBefore
		record.postponed = results[i].Postponed
		if record.Dimensions["region"] != "eu" {
			l.t.Error("sink changed the ledger's dimensions")
		}
	}
	r.records = slices.DeleteFunc(r.records, func(record *fakeRecord) bool {
		done := final(record.state) || record.state == sink.InDoubt && r.quarantinesDoubt
		if done {
			r.ended[record.state]++
		}
		return done
	})
	return nil
}

func (l *fakeLedger) Ready(route int) <-chan struct{} { return l.routes[route].ready }

func (l *fakeLedger) NextTry(route int) (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, record := range l.routes[route].records {
		if record.state != sink.Attempted {
			next = earliest(next, record.notBefore)
		}
	}
	return next
}

// OpenRecords counts those being sent, too, as the ledger does.
func (l *fakeLedger) OpenRecords(route int) (records int, quantity int64) {
	l.mu.Lock()
	for _, record := range l.routes[route].records {
		records, quantity = records+1, quantity+record.Quantity
	}
	l.mu.Unlock()
	if l.counted != nil {
		l.counted(records)
	}
	return records, quantity
}

// ended returns how many records of a route ended so.
func (l *fakeLedger) ended(route int, as sink.Outcome) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routes[route].ended[as]
}

func (l *fakeLedger) state(id string) sink.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, record := range l.routes[0].records {
		if record.ID == id {
			return record.state
		}
	}
	return sink.Delivered
}

func (l *fakeLedger) takes(route int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routes[route].takes
}

// biller is a sink that does what its script says, keeps to the contract's
// account of overlaps, and dedupes by ID.
type biller struct {
	t       testing.TB
	answer  func(ctx context.Context, call int, records []sink.Record) error // nil: takes all
	limits  sink.Limits
	mu      sync.Mutex
	calls   []call
	now     map[[2]string]bool
	applied map[string]int // times an ID was recorded
}

type call struct {
	at  time.Time
	ids []string
}

func newBiller(t testing.TB, answer func(ctx context.Context, call int, records []sink.Record) error) *biller {
	return &biller{t: t, answer: answer, now: map[[2]string]bool{}, applied: map[string]int{}}
}

func (b *biller) Limits() sink.Limits { return b.limits }

func (b *biller) Deliver(ctx context.Context, records []sink.Record) error {
	ids := make([]string, len(records))
	b.mu.Lock()
	for i, record := range records {
		ids[i] = record.ID
	}
	b.calls = append(b.calls, call{time.Now(), ids})
	number := len(b.calls)
	mine := map[[2]string]bool{}
	for _, record := range records {
		key := [2]string{record.Subject, record.Feature}
		if b.now[key] && !mine[key] {
			b.t.Errorf("two deliveries at once for %v", key)
		}
		b.now[key], mine[key] = true, true
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for key := range mine {
			delete(b.now, key)
		}
	}()
	if b.answer != nil {
		if err := b.answer(ctx, number, records); err != nil {
			return err
		}
	}
	for _, id := range ids {
		b.apply(id)
	}
	return nil
}

func (b *biller) apply(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applied[id]++
}

// times is how often an ID was recorded.
func (b *biller) times(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.applied[id]
}

func (b *biller) log() []call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// gaps are the times between calls.
func (b *biller) gaps() (gaps []time.Duration) {
	calls := b.log()
	for i := 1; i < len(calls); i++ {
		gaps = append(gaps, calls[i].at.Sub(calls[i-1].at))
	}
	return gaps
}

var errDown = errors.New("connection reset")

// down answers every call with err.
func down(err error) func(context.Context, int, []sink.Record) error {
	return func(context.Context, int, []sink.Record) error { return err }
}

// to makes a route to each sink.
func to(sinks ...sink.Sink) (routes []Route) {
	for i, s := range sinks {
		routes = append(routes, Route{Name: string(rune('a' + i)), Sink: s, Limits: LimitsOf(s)})
	}
	return routes
}

// begin starts a delivery that stops with its test.
func begin(t testing.TB, l *fakeLedger, log *slog.Logger, sinks ...sink.Sink) *Delivery {
	d := Start(Config{Ledger: l, Routes: to(sinks...), Logger: log})
	t.Cleanup(func() { require.NoError(t, d.Stop(context.Background())) })
	return d
}
