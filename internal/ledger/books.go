package ledger

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/inprocess/meter/sink"
)

// Line is one feature on one route, in units counted since the directory began.
// What no route takes stands under the route "", pending for ever.
type Line struct {
	Feature, Route string
	Accepted       int64
	Pending        int64
	Delivered      int64
	InDoubt        int64
	Rejected       int64
	Voided         int64
	Superseded     int64
	Damaged        int64
	Duplicates     int64 // events seen again since Open: outside the sum
}

func (line *Line) add(s state, quantity int64) {
	if s == moved || s == unowed {
		return
	}
	line.Accepted += quantity
	switch {
	case s == damagedCount:
		line.Damaged += quantity
	case s == attempted: // under way: its outcome comes any moment
		line.Pending += quantity
	default:
		switch s.outcome() {
		case sink.Pending:
			line.Pending += quantity
		case sink.Delivered:
			line.Delivered += quantity
		case sink.Rejected:
			line.Rejected += quantity
		case sink.Voided:
			line.Voided += quantity
		case sink.Superseded:
			line.Superseded += quantity
		default:
			line.InDoubt += quantity
		}
	}
}

// Books sums up every slot there is and every one that ever was. Counts of the
// running window are pending; on a route with a Match they appear once it was
// asked, at the window's end.
func (l *Ledger) Books() []Line {
	lines := make(map[account]*Line)
	add := func(feature, route string, s state, quantity int64) {
		k := account{feature: feature, route: route}
		if lines[k] == nil {
			lines[k] = &Line{Feature: feature, Route: route}
		}
		lines[k].add(s, quantity)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, quantity := range l.totals.books {
		add(a.feature, a.route, a.state, quantity)
	}
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		sd.eachTerm(add)
		sd.mu.Unlock()
	}
	for _, seg := range append(slices.Clone(l.retiredNow()), l.active.Load()) {
		for feature, quantity := range seg.quantities() {
			for _, r := range l.routes {
				if r.Match == nil {
					add(feature, r.Name, pending, quantity)
				}
			}
			if len(l.routes) == 0 {
				add(feature, "", pending, quantity)
			}
		}
	}
	out := make([]Line, 0, len(lines))
	for _, line := range lines {
		for _, f := range l.featuresNow() { // a name may have had another kind
			if f.name == line.Feature {
				line.Duplicates += f.duplicates.Load()
			}
		}
		out = append(out, *line)
	}
	slices.SortFunc(out, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Feature, b.Feature), cmp.Compare(a.Route, b.Route))
	})
	return out
}

// quantities sums the words of a segment that is being counted in, by feature.
func (seg *segment) quantities() map[string]int64 {
	sums := make(map[string]int64)
	seg.each(func(_ int, c *cell) {
		if word, ok := seg.load(c); ok && word&wordSet != 0 {
			sums[c.series.feature.name] += int64(word & wordCount)
		}
	})
	return sums
}

// owedToNobody reports records on routes that are no longer configured.
func (l *Ledger) owedToNobody() (errs []error) {
	orphans := make(map[string]int)
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		for i, o := range sd.head.routes {
			if sd.table[i] >= 0 || sd.unsettled == 0 {
				continue
			}
			for _, t := range sd.tallies {
				for s := range stateCodes {
					if !s.settled() && t[i][s] != 0 {
						orphans[o.name]++
						break
					}
				}
			}
		}
		sd.mu.Unlock()
	}
	for name, n := range orphans {
		errs = append(errs, fmt.Errorf("meter: route %q is not configured (or leads elsewhere now), and usage in %d windows is still owed to it: configure it again, or empty the directory once you have written it off", name, n))
	}
	return errs
}

// quarantined reports records that wait for an operator.
func (l *Ledger) quarantined() error {
	n := 0
	for _, sd := range l.sealedNow() {
		sd.mu.Lock()
		n += sd.held
		sd.mu.Unlock()
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("meter: %s quarantined and %s for Settle", count(n, "record is", "records are"), map[bool]string{true: "waits", false: "wait"}[n == 1])
}

// count puts a number before one or several.
func count(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
