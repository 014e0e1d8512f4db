package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inprocess/meter"
	"github.com/inprocess/meter/sink"
)

// oracle knows only what callers were told, and judges by it what was billed.
type oracle struct {
	tallies map[seriesKey]*tally
	flight  map[uint8]note      // the count under way, by worker
	total   map[string]int64    // by feature, what the files had
	billed  map[seriesKey]int64 // ditto, by subject, of the Sums
	seen    map[string]bool     // IDs
	recent  []heard             // acknowledged counts that a power cut may take, oldest first
	power   bool                // it may be cut: what is not synced may be lost
	fragile bool                // what is acknowledged may not be synced yet
	sums    figures
}

// tally is what became of one series' counts since the last verdict.
type tally struct {
	counted int64          // acknowledged units of a Sum
	maybe   []note         // under way at a kill
	levels  map[int64]bool // acknowledged, of a Max or Last
	last    int64          // of them
	since   []int64        // levels under way at kills after the last acknowledged one
}

// figures are for the log.
type figures struct {
	counts, refused, inFlight, records int
	units                              int64 // of Sums
}

func newOracle() *oracle {
	return &oracle{
		tallies: map[seriesKey]*tally{}, flight: map[uint8]note{},
		total: map[string]int64{}, billed: map[seriesKey]int64{}, seen: map[string]bool{},
	}
}

func (o *oracle) tally(n note) *tally {
	t := o.tallies[n.key()]
	if t == nil {
		t = &tally{levels: map[int64]bool{}}
		o.tallies[n.key()] = t
	}
	return t
}

// hear takes a child's note.
func (o *oracle) hear(n note) {
	switch n.kind {
	case intent, burst:
		o.flight[n.worker] = n
	case refused:
		o.sums.refused++
		delete(o.flight, n.worker)
	case counted:
		delete(o.flight, n.worker)
		if o.fragile {
			o.recent = append(o.recent, heard{n, time.Now()})
			return
		}
		o.count(n)
	case unsynced:
		delete(o.flight, n.worker)
		switch {
		case o.fragile:
			o.recent = append(o.recent, heard{n, never})
		case o.power:
			o.perhaps(n)
		default: // a kill doesn't take it, unless it is in memory, which is a violation by itself
			o.count(n)
		}
	}
}

// count holds the library to an acknowledged count.
func (o *oracle) count(n note) {
	t := o.tally(n)
	o.sums.counts++
	if features[n.feature].kind == sink.Sum {
		o.sums.units += n.n
		t.counted += n.n
	} else {
		t.levels[n.n], t.last, t.since = true, n.n, nil
	}
}

// perhaps takes note of a count that may be billed.
func (o *oracle) perhaps(n note) {
	o.sums.inFlight++
	t := o.tally(n)
	t.maybe = append(t.maybe, n)
	if features[n.feature].kind != sink.Sum {
		t.since = append(t.since, n.n)
	}
}

// killed is told that the child is dead and has said all it could.
func (o *oracle) killed() {
	for _, n := range o.flight {
		o.perhaps(n)
	}
	clear(o.flight)
}

// heard is when a count was acknowledged.
type heard struct {
	note
	at time.Time
}

// never is when a count becomes safe that can't be synced.
var never = time.Unix(1<<40, 0)

// cut is told that what was acknowledged since then may be lost with the power.
func (o *oracle) cut(since time.Time) {
	for _, h := range o.recent {
		if h.at.Before(since) {
			o.count(h.note)
		} else {
			o.perhaps(h.note)
		}
	}
	o.recent = nil
}

// violation is one broken promise.
type violation struct{ rule, text string }

func (v violation) String() string { return v.rule + ": " + v.text }

// evidence is what there is to see once everything open was delivered.
type evidence struct {
	lines    []line // of the sink's files
	torn     int    // lines of them that are no record
	attempts []line // of the witness
	books    meter.Books
	months   map[seriesKey]int64 // Total of every subject of a Sum; nil: a month has ended meanwhile
	health   error
	damaged  []string // files that some recovery has set aside, also one whose process died since
	heap     bool     // a process counted in memory for a while, though its disk was fine: a kill takes such counts
}

// judge compares, and begins anew: the files may be deleted afterwards.
func (o *oracle) judge(e evidence) (found []violation) {
	report := func(rule, format string, args ...any) {
		found = append(found, violation{rule, fmt.Sprintf(format, args...)})
	}
	o.sums.records += len(e.lines)
	if e.torn > 0 {
		report("file", "%d lines are no record", e.torn)
	}
	bodies := map[string]string{}
	for _, l := range slices.Concat(e.attempts, e.lines) {
		if known, ok := bodies[l.ID]; ok && known != l.body() {
			report("body", "record %s was %s and then %s", l.ID, known, l.body())
		}
		bodies[l.ID] = l.body()
	}
	bySeries := map[seriesKey][]line{}
	for _, l := range e.lines {
		if o.seen[l.ID] {
			report("twice", "record %s is billed twice", l.ID)
		}
		o.seen[l.ID] = true
		k := seriesKey{l.Feature, l.Subject}
		bySeries[k] = append(bySeries[k], l)
		o.total[l.Feature] += l.Quantity
		if l.Kind == sink.Sum.String() {
			o.billed[k] += l.Quantity
		}
	}
	for k, lines := range bySeries {
		if o.tallies[k] == nil {
			report("extra", "%v was billed %v and never counted", k, lines)
		}
	}
	for k, t := range o.tallies {
		found = append(found, t.judge(k, bySeries[k])...)
	}
	o.judgeBooks(e.books, report)
	if e.months != nil && !maps.Equal(nonZero(e.months), nonZero(o.billed)) {
		for k, n := range o.billed {
			if e.months[k] != n {
				report("total", "%v has a total of %d, and %d were billed", k, e.months[k], n)
			}
		}
	}
	if e.health != nil {
		report("health", "%v", e.health)
	}
	if len(e.damaged) > 0 {
		report("damage", "a recovery could not read %v", e.damaged)
	}
	if e.heap {
		report("memory", "a process on a good disk counted in memory, where a kill takes counts")
	}
	clear(o.tallies)
	return found
}

func nonZero(m map[seriesKey]int64) map[seriesKey]int64 {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_ seriesKey, n int64) bool { return n == 0 })
	return m
}

func (t *tally) judge(k seriesKey, lines []line) []violation {
	switch kindOf(k.feature) {
	case sink.Last:
		return t.judgeLast(k, lines)
	case sink.Max:
		return t.judgeMax(k, lines)
	}
	billed := int64(0)
	for _, l := range lines {
		billed += l.Quantity
	}
	least, most := t.counted, t.counted
	for _, n := range t.maybe {
		most += n.n
	}
	switch {
	case billed < least:
		return []violation{{"lost", fmt.Sprintf("%v: %d acknowledged, %d billed (%d may be on top)", k, least, billed, most-least)}}
	case billed > most:
		return []violation{{"extra", fmt.Sprintf("%v: %d acknowledged and at most %d under way at kills, %d billed", k, least, most-least, billed)}}
	case len(t.maybe) < 100 && !reachable(billed-least, t.maybe): // of many, nearly every sum is
		return []violation{{"extra", fmt.Sprintf("%v: %d billed beyond what was acknowledged, and no choice among %v makes that", k, billed-least, t.maybe)}}
	}
	return nil
}

// reachable reports whether some of the counts under way add up to sum. A burst
// gives any number up to its own.
func reachable(sum int64, maybe []note) bool {
	sums := make([]bool, sum+1)
	sums[0] = true
	for _, n := range maybe {
		before := slices.Clone(sums)
		step := n.n
		if n.kind == burst {
			step = 1
		}
		for add := step; add > 0 && add <= n.n; add += step {
			for s := add; s <= sum; s++ {
				sums[s] = sums[s] || before[s-add]
			}
			if sums[sum] {
				return true
			}
		}
	}
	return sums[sum]
}

// judgeLast knows that levels only rise.
func (t *tally) judgeLast(k seriesKey, lines []line) (found []violation) {
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.Start, b.Start) })
	final := int64(-1)
	for _, l := range lines {
		switch {
		case l.Quantity <= final:
			found = append(found, violation{"order", fmt.Sprintf("%v: level %d is billed for %s, after %d", k, l.Quantity, l.Start, final)})
		case !t.knows(l.Quantity):
			found = append(found, violation{"extra", fmt.Sprintf("%v: level %d was never set", k, l.Quantity)})
		}
		final = l.Quantity
	}
	if len(t.levels) > 0 && final != t.last && !slices.Contains(t.since, final) {
		found = append(found, violation{"lost", fmt.Sprintf("%v: level %d is the last one billed, %d the last acknowledged, %v were under way", k, final, t.last, t.since)})
	}
	return found
}

func (t *tally) judgeMax(k seriesKey, lines []line) (found []violation) {
	highest := int64(-1)
	for _, l := range lines {
		highest = max(highest, l.Quantity)
		if !t.knows(l.Quantity) {
			found = append(found, violation{"extra", fmt.Sprintf("%v: level %d was never set", k, l.Quantity)})
		}
	}
	for level := range t.levels {
		if level > highest {
			found = append(found, violation{"lost", fmt.Sprintf("%v: level %d was acknowledged, %d is the highest billed", k, level, highest)})
		}
	}
	return found
}

func (t *tally) knows(level int64) bool {
	return t.levels[level] || slices.ContainsFunc(t.maybe, func(n note) bool { return n.n == level })
}

// judgeBooks holds the books against everything that the files ever had.
func (o *oracle) judgeBooks(books meter.Books, report func(rule, format string, args ...any)) {
	if err := books.Check(); err != nil {
		report("books", "%v", err)
	}
	told := map[string]bool{}
	for _, l := range books {
		told[l.Feature] = true
		if l.Pending != 0 || l.InDoubt != 0 || l.Rejected != 0 || l.Voided != 0 || l.Damaged != 0 {
			report("books", "something is left: %+v", l)
		}
		filed := o.total[l.Feature]
		if kindOf(l.Feature) == sink.Last {
			// One that was in doubt when a newer one was sent may be in the file.
			if filed < l.Delivered || filed > l.Delivered+l.Superseded {
				report("books", "the file has %d: %+v", filed, l)
			}
		} else if l.Delivered != filed || l.Accepted != filed {
			report("books", "the file has %d: %+v", filed, l)
		}
	}
	for feature, filed := range o.total {
		if filed != 0 && !told[feature] {
			report("books", "the file has %d of %s, the books nothing", filed, feature)
		}
	}
}

func kindOf(feature string) sink.Kind {
	for _, f := range features {
		if f.name == feature {
			return f.kind
		}
	}
	return sink.Sum
}
