package signed

import (
	"testing"

	"github.com/inprocess/meter/license"
)

// What an answer costs, by far the most of it for its signature.
func BenchmarkOpen(b *testing.B) {
	keys, answer := keysOf(b, vendor()), reply(b, vendor(), whole())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Open(answer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerdict(b *testing.B) {
	l, terms := open(b, nil), Terms{Features: map[string]int{"f": 1}}
	q := license.Query{Feature: "f", Machine: "m1"}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := terms.Verdict(l, q, l.SignDate); err != nil || v.Status != license.Allowed {
			b.Fatal(v, err)
		}
	}
}
