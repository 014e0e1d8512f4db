package ledger

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter/sink"
)

// world is a ledger beside a simple model of it. The model never reads the
// ledger's slots: it knows what was counted and how every attempt was answered.
type world struct {
	t       testing.TB
	mode    string
	dir     string
	l       *Ledger
	active  map[modelKey]int64
	events  map[string]modelEvent
	began   int64 // start of the active window
	periods map[string]modelPeriod
	records []*modelRecord
	byID    map[string]*modelRecord
	flights []*flight
	routes  int // so many of modelRoutes are there; a route that comes later is owed nothing from before
	counted int // so many were there when what is active was counted
}

type modelKey struct {
	feature, subject string
	used             int64 // when, of backdated usage
}

type modelEvent struct {
	subject  string
	quantity int64
}

type modelRecord struct {
	modelKey
	start    int64 // of the window in which it was counted
	quantity int64
	id       string
	state    [2]state
	first    [2]time.Time
}

type flight struct {
	route   int
	batch   *Batch
	records []*modelRecord
	doubted []bool
}

var modelRoutes = []string{"main", "other"}

var modelKinds = map[string]sink.Kind{"calls": sink.Sum, "peak": sink.Max, "seats": sink.Last}

// modelWindow is the second route's dedupe window: records may be sent again for
// twenty seconds. A program never lasts the hour after which windows are merged.
const modelWindow = time.Hour + 20*time.Second

func (w *world) open() {
	cfg := testConfig(w.dir, func(c *Config) {
		c.Sync = SyncAlways
		c.Routes = []Route{
			{Name: "main", DedupeWindow: sink.Forever, Timeout: time.Second},
			{Name: "other", DedupeWindow: modelWindow, Timeout: time.Second, Match: func(r sink.Record) bool { return r.Subject != "s0" }},
		}[:w.routes]
	})
	var err error
	w.l, err = openMode(cfg, w.mode)
	require.NoError(w.t, err)
	synctest.Wait() // what Open tidies is tidy
	w.seal()
	w.counted = w.routes
	for _, r := range w.records {
		for i := range r.state {
			if r.state[i] == attempted {
				r.state[i] = inDoubt
			}
		}
	}
	w.flights = nil
	w.began = w.l.active.Load().head.start
}

// seal makes records of what was counted.
func (w *world) seal() {
	for k, q := range w.active {
		r := &modelRecord{modelKey: k, start: w.began, quantity: q, state: [2]state{pending, pending}}
		if k.subject == "s0" || w.counted < 2 {
			r.state[1] = unowed
		}
		w.records = append(w.records, r)
	}
	w.active = make(map[modelKey]int64)
}

func (w *world) count(feature, subject string, n int64) {
	kind := modelKinds[feature]
	f, err := w.l.Feature(feature, kind)
	require.NoError(w.t, err)
	if len(w.active) == 0 {
		w.began = w.l.active.Load().head.start
	}
	k := modelKey{feature: feature, subject: subject}
	old, known := w.active[k]
	if kind == sink.Sum {
		require.NoError(w.t, f.Add(subject, n))
		if n > 0 {
			w.active[k] = old + n
		}
		return
	}
	require.NoError(w.t, f.Set(subject, n))
	if kind == sink.Last || !known || n > old {
		w.active[k] = n
	}
}

// event counts one of sixteen events, for whoever and however much it is this time; some
// of them late, for a subject of their own. A program is over before any is forgotten.
func (w *world) event(subject string, b byte) {
	f, err := w.l.Feature("calls", sink.Sum)
	require.NoError(w.t, err)
	if len(w.active) == 0 {
		w.began = w.l.active.Load().head.start
	}
	var at time.Time
	k := modelKey{feature: "calls", subject: subject}
	if b&32 != 0 {
		k.subject, at = "late", time.Unix(w.began-1-int64(b)*7, 0)
		k.used = at.Truncate(time.Minute).Unix()
	}
	id, now := fmt.Sprint(b%16), modelEvent{k.subject, int64(b / 64)}
	err = f.AddEvent(k.subject, nil, at, "", id, now.quantity)
	switch before, again := w.events[id]; {
	case now.quantity == 0:
		require.NoError(w.t, err)
	case !again:
		require.NoError(w.t, err)
		w.events[id] = now
		w.active[k] += now.quantity
	case before == now:
		require.NoError(w.t, err)
	default:
		require.ErrorIs(w.t, err, ErrConflict)
	}
}

func (w *world) rotate() {
	require.NoError(w.t, w.l.Rotate(context.Background()))
	w.seal()
	w.began = w.l.active.Load().head.start
}

func (w *world) busy(route int, r *modelRecord) bool {
	for _, f := range w.flights {
		for _, other := range f.records {
			if f.route == route && other.feature == r.feature && other.subject == r.subject {
				return true
			}
		}
	}
	return false
}

// mayResend is the rule in its own words: only while the biller surely remembers.
func (w *world) mayResend(route int, r *modelRecord) bool {
	return route == 0 || time.Now().Add(time.Second).Before(r.first[1].Add(modelWindow-time.Hour))
}

func (w *world) take(route, most int) {
	t := w.t
	b, err := w.l.Take(route, most, nil)
	require.NoError(t, err)
	fl := &flight{route: route, batch: b}
	w.learnHeld(route)
	if b == nil {
		return
	}
	require.LessOrEqual(t, len(b.Records), most)
	for _, rec := range b.Records {
		r := w.find(rec)
		require.Contains(t, []state{pending, inDoubt}, r.state[route], "taken: %v", rec)
		require.False(t, w.busy(route, r), "two deliveries overlap")
		doubted := r.state[route] == inDoubt
		require.Equal(t, doubted, doubted && rec.Attempt > 1 && w.mayResend(route, r), "resent at the wrong time")
		if !doubted {
			r.first[route] = time.Now().Truncate(time.Second)
		}
		if rec.Kind == sink.Last {
			for _, other := range w.records {
				if other.modelKey != r.modelKey || other.start == r.start {
					continue
				}
				if other.start > r.start {
					require.Contains(t, []state{pending, pendingHeld, unowed, superseded}, other.state[route], "a Last sent after a newer one: %v", rec)
				} else if s := other.state[route]; s.sendable() || s.held() && !w.inQuarantine(route, other) {
					other.state[route] = superseded
				}
			}
		}
		r.state[route] = attempted
		fl.records, fl.doubted = append(fl.records, r), append(fl.doubted, doubted)
	}
	w.flights = append(w.flights, fl)
}

// find is the model's record for one of the ledger's.
func (w *world) find(rec sink.Record) *modelRecord {
	if r := w.byID[rec.ID]; r != nil {
		require.Equal(w.t, r.quantity, rec.Quantity, "%v", rec)
		require.Equal(w.t, []string{r.feature, r.subject}, []string{rec.Feature, rec.Subject})
		return r
	}
	for _, r := range w.records {
		if r.id != "" || r.feature != rec.Feature || r.subject != rec.Subject || rec.Backdated != (r.used != 0) {
			continue
		}
		if r.used == 0 && r.start == rec.Start.Unix() || r.used != 0 && r.used == rec.Start.Unix() && r.quantity == rec.Quantity {
			require.Equal(w.t, r.quantity, rec.Quantity, "%v", rec)
			require.Equal(w.t, modelKinds[r.feature], rec.Kind)
			r.id, w.byID[rec.ID] = rec.ID, r
			return r
		}
	}
	require.Fail(w.t, "a record of nothing that was counted", "%v", rec)
	return nil
}

// learnHeld checks what Take put into quarantine: only what was in doubt for too long.
func (w *world) learnHeld(route int) {
	for rec, outcome := range w.l.Quarantine() {
		r, i := w.find(rec.Record), slices.Index(modelRoutes, rec.Route)
		switch {
		case r.state[i].held():
			require.Equal(w.t, r.state[i].outcome(), outcome)
		default:
			require.Equal(w.t, route, i)
			require.Equal(w.t, inDoubt, r.state[i], "held: %v", rec)
			require.False(w.t, w.mayResend(i, r), "held: %v", rec)
			r.state[i] = doubtHeld
		}
	}
}

func (w *world) inQuarantine(route int, r *modelRecord) bool {
	for held := range w.l.Quarantine() {
		if held.ID == r.id && held.Route == modelRoutes[route] {
			return true
		}
	}
	return false
}

func (w *world) resolve(which int, answers []byte) {
	if len(w.flights) == 0 {
		return
	}
	which %= len(w.flights)
	fl := w.flights[which]
	w.flights = append(w.flights[:which:which], w.flights[which+1:]...)
	results := make([]Result, len(fl.records))
	for i, r := range fl.records {
		answer := sink.Delivered
		if len(answers) > 0 {
			answer = []sink.Outcome{sink.Delivered, sink.Rejected, sink.Pending, sink.InDoubt}[answers[i%len(answers)]%4]
		}
		results[i].Outcome = answer
		to := inDoubt
		switch {
		case answer == sink.Delivered:
			to = delivered
		case answer == sink.Rejected && !fl.doubted[i]:
			to = rejectedHeld
		case answer == sink.Rejected:
			to = doubtHeld
		case answer == sink.Pending && !fl.doubted[i]:
			to = pending
		}
		if to == inDoubt && !w.mayResend(fl.route, r) {
			to = doubtHeld
		}
		r.state[fl.route] = to
	}
	require.NoError(w.t, fl.batch.Resolve(results))
}

func (w *world) settle(which, as byte) {
	var held []QuarantinedRecord
	for r := range w.l.Quarantine() {
		held = append(held, r)
	}
	if len(held) == 0 {
		return
	}
	rec := held[int(which)%len(held)]
	route := slices.Index(modelRoutes, rec.Route)
	r := w.find(rec.Record)
	require.True(w.t, r.state[route].held())
	to := []state{voided, delivered, rejected, pending}[as%4]
	err := w.l.Settle(context.Background(), rec.Route, rec.ID, []sink.Outcome{sink.Voided, sink.Delivered, sink.Rejected, sink.Pending}[as%4], "as told")
	if to == pending && w.newerAttempted(route, r) {
		// Sending it would set the level back: refused, or superseded at once.
		if err == nil {
			r.state[route] = superseded
		}
		return
	}
	require.NoError(w.t, err)
	r.state[route] = to
}

func (w *world) newerAttempted(route int, r *modelRecord) bool {
	for _, other := range w.records {
		if modelKinds[r.feature] == sink.Last && other.modelKey == r.modelKey && other.start > r.start && !slices.Contains([]state{pending, unowed, superseded}, other.state[route]) {
			return true
		}
	}
	return false
}

// check compares the books and the month's totals with the model.
func (w *world) check(op string) {
	lines := make(map[string]*Line)
	add := func(feature string, route int, s state, q int64) {
		if s == unowed {
			return
		}
		name := modelRoutes[route]
		if lines[feature+name] == nil {
			lines[feature+name] = &Line{Feature: feature, Route: name}
		}
		line := lines[feature+name]
		line.Accepted += q
		switch s {
		case pending, pendingHeld, attempted:
			line.Pending += q
		case delivered:
			line.Delivered += q
		case inDoubt, doubtHeld:
			line.InDoubt += q
		case rejected, rejectedHeld:
			line.Rejected += q
		case voided:
			line.Voided += q
		case superseded:
			line.Superseded += q
		}
	}
	month := monthOf(time.Now().Unix())
	totals, latest := make(map[modelKey]int64), make(map[modelKey]int64)
	note := func(k modelKey, start, q int64) {
		if k.used != 0 {
			start = k.used
		}
		if monthOf(start) != month {
			return
		}
		k.used = 0
		switch modelKinds[k.feature] {
		case sink.Sum:
			totals[k] += q
		case sink.Max:
			totals[k] = max(totals[k], q)
		case sink.Last:
			if start >= latest[k] {
				totals[k], latest[k] = q, start
			}
		}
	}
	for _, r := range w.records {
		note(r.modelKey, r.start, r.quantity)
		for i, s := range r.state {
			add(r.feature, i, s, r.quantity)
		}
	}
	for k, q := range w.active {
		note(k, w.began, q)
		add(k.feature, 0, pending, q)
	}
	want := make(map[string]Line)
	for k, line := range lines {
		if *line != (Line{Feature: line.Feature, Route: line.Route}) {
			want[k] = *line
		}
	}
	got := make(map[string]Line)
	for _, line := range withoutDuplicates(w.l.Books()) {
		if line != (Line{Feature: line.Feature, Route: line.Route}) {
			got[line.Feature+line.Route] = line
		}
	}
	require.Equal(w.t, want, got, op)
	held := 0
	for rec, outcome := range w.l.Quarantine() {
		r, route := w.find(rec.Record), slices.Index(modelRoutes, rec.Route)
		require.True(w.t, r.state[route].held(), "%s: in quarantine: %v", op, rec)
		require.Equal(w.t, r.state[route].outcome(), outcome, op)
		held++
	}
	for _, r := range w.records {
		for _, s := range r.state {
			if s.held() {
				held--
			}
		}
	}
	require.Zero(w.t, held, "%s: records in quarantine", op)
	for k, q := range totals {
		f, err := w.l.Feature(k.feature, modelKinds[k.feature])
		require.NoError(w.t, err)
		total, _, _ := f.Total(k.subject)
		require.Equal(w.t, q, total, "%s: total of %v", op, k)
	}
	w.checkPeriods(op)
}
