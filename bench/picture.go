package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// panels are what the picture shows of the tables.
var panels = []struct{ table, column, title string }{
	{"count by name, 1 goroutine", "1k zipf", "Count a use, 1,000 customers, one goroutine"},
	{"count by name, 64 goroutines", "100k uniform", "Count a use, 100,000 customers, 64 goroutines"},
	{"middleware", "1 goroutine", "What a middleware adds to a request"},
	{"license check", "1k, 64 goroutines", "Check a license, 1,000 customers, 64 goroutines"},
	{"power-safe count", "1024 callers", "Count a use, safe from power loss, 1024 callers"},
}

const (
	labels, bars, right = 270, 360, 90 // widths
	line, heading       = 20, 34       // heights
)

var colors = map[class]string{ours: "#0b7285", limit: "#adb5bd", peer: "#f08c00"}

// draw shows in bars, as times of what meter takes, what each contender takes. A bar
// that is ten times as long says ten times as much: lengths are logarithms from 0.1 on.
func draw(seen []result) []byte {
	var b bytes.Buffer
	y := 0
	for _, p := range panels {
		i := slices.IndexFunc(seen, func(r result) bool { return r.name == p.table })
		if i < 0 {
			continue
		}
		reference, ok := seen[i].reference()
		if !ok || len(reference.values[p.column]) == 0 {
			continue
		}
		y += heading
		fmt.Fprintf(&b, `<text x="8" y="%d" font-weight="bold">%s</text>`+"\n", y-8, html.EscapeString(p.title))
		for _, r := range seen[i].rows {
			if r.name == seen[i].base || len(r.values[p.column]) == 0 {
				continue
			}
			v := ratio(r, reference, p.column)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
				labels-6, y+14, html.EscapeString(r.name), labels, y+2, length(v), line-4, colors[r.class], labels+length(v)+5, y+14, times(v))
			y += line
		}
	}
	var whole bytes.Buffer
	width, height := labels+bars+right, y+heading
	fmt.Fprintf(&whole, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&whole, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	whole.Write(b.Bytes())
	fmt.Fprintf(&whole, `<text x="8" y="%d" fill="#495057">Time, in times of meter's own, kill-safe in a directory; logarithmic. Less is better.</text>`+"\n</svg>\n", height-12)
	return whole.Bytes()
}

// length of a bar: from 0.1 to 1000 times.
func length(v float64) float64 {
	return bars * min(max((math.Log10(v)+1)/4, 0.005), 1)
}
