package meter

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Books has one line per feature and route. With no route, features have one line
// each, without a route's name.
//
// Concurrency: a plain value, the caller's own.
type Books []Line

// Line is one feature on one route, in the feature's units, since the directory
// was first opened.
//
// Concurrency: a plain value.
type Line struct {
	Feature, Route string
	Accepted       int64 // counted: the sum of the terms below
	Pending        int64 // to be sent, or being sent
	Delivered      int64 // recorded by the biller
	InDoubt        int64 // sent, and nobody knows whether it was recorded
	Rejected       int64 // refused by the biller for good
	Voided         int64 // written off by an operator
	Superseded     int64 // a Last made obsolete by a newer one
	Damaged        int64 // lost by a disk
	Duplicates     int64 // events seen again since Open, which are not units: outside the sum, the same on every route
}

// unaccounted is what the terms miss of what was accepted.
func (l Line) unaccounted() int64 {
	return l.Accepted - l.Pending - l.Delivered - l.InDoubt - l.Rejected - l.Voided - l.Superseded - l.Damaged
}

// Check returns nil when every line balances.
//
// Errors: every line that does not, with the difference.
func (b Books) Check() error {
	var faults []error
	for _, l := range b {
		if d := l.unaccounted(); d != 0 {
			faults = append(faults, fmt.Errorf("meter: books: feature %q on route %q: %d of %d accepted are unaccounted for",
				l.Feature, l.Route, d, l.Accepted))
		}
	}
	return errors.Join(faults...)
}

// String is an aligned table, with a total per route when it has several features,
// and a column of duplicates when there are any.
func (b Books) String() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	again := slices.ContainsFunc(b, func(l Line) bool { return l.Duplicates > 0 })
	duplicates := ""
	if again {
		duplicates = "duplicates\t"
	}
	fmt.Fprintln(w, "feature\troute\taccepted\tpending\tdelivered\tin doubt\trejected\tvoided\tsuperseded\tdamaged\t"+duplicates)
	sorted := slices.SortedFunc(slices.Values(b), func(x, y Line) int {
		return cmp.Or(cmp.Compare(x.Route, y.Route), cmp.Compare(x.Feature, y.Feature))
	})
	for rest := sorted; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(l Line) bool { return l.Route != rest[0].Route })
		if n < 0 {
			n = len(rest)
		}
		total := Line{Feature: "total", Route: rest[0].Route}
		for _, l := range rest[:n] {
			l.print(w, again)
			total.add(l)
		}
		if n > 1 {
			total.print(w, again)
		}
		rest = rest[n:]
	}
	w.Flush() // can't fail into a strings.Builder
	return text.String()
}

func (l *Line) add(o Line) {
	l.Accepted += o.Accepted
	l.Pending += o.Pending
	l.Delivered += o.Delivered
	l.InDoubt += o.InDoubt
	l.Rejected += o.Rejected
	l.Voided += o.Voided
	l.Superseded += o.Superseded
	l.Damaged += o.Damaged
	l.Duplicates += o.Duplicates
}

func (l *Line) print(w *tabwriter.Writer, duplicates bool) {
	cells := []string{l.Feature, l.Route}
	columns := []int64{l.Accepted, l.Pending, l.Delivered, l.InDoubt, l.Rejected, l.Voided, l.Superseded, l.Damaged}
	if duplicates {
		columns = append(columns, l.Duplicates)
	}
	for _, n := range columns {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	row := strings.Join(cells, "\t") + "\t"
	if d := l.unaccounted(); d != 0 {
		row += fmt.Sprintf(" off by %d", d)
	}
	fmt.Fprintln(w, row)
}
