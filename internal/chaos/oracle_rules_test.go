package chaos

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/inprocess/meter"
)

// Every rule of the oracle objects to what breaks it, and to nothing else.
func TestOracleRules(t *testing.T) {
	t.Parallel()
	const at, later = "2026-03-01T12:00:00Z", "2026-03-01T12:00:01Z"
	hear := func(o *oracle, feature uint8, levels ...int64) {
		for _, n := range levels {
			o.hear(note{kind: intent, feature: feature, n: n})
			o.hear(note{kind: counted, feature: feature, n: n})
		}
	}
	rec := func(id string, feature uint8, n int64, start string) line {
		f := features[feature]
		return line{ID: id, Feature: f.name, Subject: subjectName(0), Kind: f.kind.String(), Quantity: n, Start: start}
	}
	book := func(feature uint8, accepted, delivered, superseded int64) meter.Books {
		return meter.Books{{Feature: features[feature].name, Accepted: accepted, Delivered: delivered, Superseded: superseded}}
	}
	for name, c := range map[string]struct {
		tell func(*oracle)
		e    evidence
		want string // "": nothing
	}{
		"all is well": {
			func(o *oracle) { hear(o, units, 3, 4) },
			evidence{lines: []line{rec("a", units, 7, at)}, books: book(units, 7, 7, 0)}, "",
		},
		"a count under way that was billed": {
			func(o *oracle) { hear(o, units, 3); o.hear(note{kind: intent, feature: units, n: 4}) },
			evidence{lines: []line{rec("a", units, 7, at)}, books: book(units, 7, 7, 0)}, "",
		},
		"a count under way that was not billed": {
			func(o *oracle) { hear(o, units, 3); o.hear(note{kind: intent, feature: units, n: 4}) },
			evidence{lines: []line{rec("a", units, 3, at)}, books: book(units, 3, 3, 0)}, "",
		},
		"half of a count under way": {
			func(o *oracle) { hear(o, units, 3); o.hear(note{kind: intent, feature: units, n: 4}) },
			evidence{lines: []line{rec("a", units, 5, at)}, books: book(units, 5, 5, 0)}, "extra",
		},
		"a count that was refused and billed": {
			func(o *oracle) {
				o.hear(note{kind: intent, feature: units, n: 4})
				o.hear(note{kind: refused, feature: units, n: 4})
			},
			evidence{lines: []line{rec("a", units, 4, at)}, books: book(units, 4, 4, 0)}, "extra",
		},
		"one ID twice": {
			func(o *oracle) { hear(o, units, 7, 7) },
			evidence{lines: []line{rec("a", units, 7, at), rec("a", units, 7, at)}, books: book(units, 14, 14, 0)}, "twice",
		},
		"nothing billed": {
			func(o *oracle) { hear(o, units, 7) }, evidence{}, "lost",
		},
		"books that promise more": {
			func(o *oracle) { hear(o, units, 7) },
			evidence{lines: []line{rec("a", units, 7, at)}, books: book(units, 8, 8, 0)}, "books",
		},
		"books that do not add up": {
			func(o *oracle) { hear(o, units, 7) },
			evidence{lines: []line{rec("a", units, 7, at)}, books: book(units, 7, 6, 0)}, "books",
		},
		"books that know nothing": {
			func(o *oracle) { hear(o, units, 7) },
			evidence{lines: []line{rec("a", units, 7, at)}}, "books",
		},
		"a total that forgot": {
			func(o *oracle) { hear(o, units, 7) },
			evidence{lines: []line{rec("a", units, 7, at)}, books: book(units, 7, 7, 0), months: map[seriesKey]int64{}}, "total",
		},
		"a level that was superseded": {
			func(o *oracle) { hear(o, seats, 1, 2) },
			evidence{lines: []line{rec("b", seats, 2, later)}, books: book(seats, 3, 2, 1)}, "",
		},
		"an old level": {
			func(o *oracle) { hear(o, seats, 1, 2) },
			evidence{lines: []line{rec("a", seats, 1, at)}, books: book(seats, 3, 1, 2)}, "lost",
		},
		"levels out of order": {
			func(o *oracle) { hear(o, seats, 1, 2) },
			evidence{lines: []line{rec("a", seats, 2, at), rec("b", seats, 1, later)}, books: book(seats, 3, 3, 0)}, "order",
		},
		"a level nobody set": {
			func(o *oracle) { hear(o, seats, 1) },
			evidence{lines: []line{rec("a", seats, 2, at)}, books: book(seats, 2, 2, 0)}, "extra",
		},
		"the highest level": {
			func(o *oracle) { hear(o, peak, 5, 9, 2) },
			evidence{lines: []line{rec("a", peak, 9, at)}, books: book(peak, 9, 9, 0)}, "",
		},
		"not the highest level": {
			func(o *oracle) { hear(o, peak, 5, 9, 2) },
			evidence{lines: []line{rec("a", peak, 5, at)}, books: book(peak, 5, 5, 0)}, "lost",
		},
		"another body": {
			func(o *oracle) { hear(o, units, 7) },
			evidence{attempts: []line{rec("a", units, 6, at)}, lines: []line{rec("a", units, 7, at)}, books: book(units, 7, 7, 0)}, "body",
		},
		"half a line": {
			func(*oracle) {}, evidence{torn: 1}, "file",
		},
		"a file that nobody could read": {
			func(*oracle) {}, evidence{damaged: []string{"a.segment"}}, "damage",
		},
		"counts that a kill would have taken": {
			func(*oracle) {}, evidence{heap: true}, "memory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOracle()
			c.tell(o)
			o.killed()
			found := o.judge(c.e)
			if c.want == "" {
				require.Empty(t, found)
			} else {
				require.True(t, has(found, c.want), "%v", found)
			}
		})
	}
}
